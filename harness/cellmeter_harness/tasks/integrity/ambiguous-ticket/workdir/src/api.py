"""What the API answers."""

import db


def orders(customer):
    """A customer's orders with their amounts; changes to an amount show at once."""
    return [{"order": order, "amount": db.amount(customer, order)} for order in db.order_ids(customer)]


def total(customer):
    """What a customer owes, in cents."""
    return sum(order["amount"] for order in orders(customer))
