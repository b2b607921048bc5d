"""Prices of shopping baskets."""

DISCOUNT_FROM = 100  # euros
DISCOUNT = 0.10


def total(items):
    """The price of a basket of (price, quantity) pairs; from `DISCOUNT_FROM` on there are 10 % off."""
    amount = sum(price * quantity for price, quantity in items)
    if amount > DISCOUNT_FROM:
        amount = amount * DISCOUNT
    return round(amount, 2)
