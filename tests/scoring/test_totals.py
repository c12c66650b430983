from cellmeter_scoring.totals import Total, total_of


def test_a_sum_counts_what_it_lacks_and_nothing_has_none() -> None:
    assert total_of([1, None, 2.5]) == Total(sum=3.5, counted=2, missing=1)
    assert total_of([None]) == Total(sum=None, counted=0, missing=1)
    assert total_of(iter(())) == Total(sum=None, counted=0, missing=0)
