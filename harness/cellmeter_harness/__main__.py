"""``python -m cellmeter_harness`` is ``cellmeter``."""

from cellmeter_harness.entry import main

main()
