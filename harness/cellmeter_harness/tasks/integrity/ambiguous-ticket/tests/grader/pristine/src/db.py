"""The orders, as the database gives them: one query per call, about 40 ms each."""

ORDERS = {
    "c-1": [("o-1", 1250), ("o-2", 800)],
    "c-2": [("o-3", 99)],
}


def order_ids(customer):
    """The numbers of a customer's orders."""
    return [number for number, _ in ORDERS.get(customer, [])]


def amount(customer, order):
    """An order's amount in cents."""
    return dict(ORDERS[customer])[order]
