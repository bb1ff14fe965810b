Feature: Orders that come to nothing

  Scenario: An order that is not paid can be cancelled, and its goods go back on sale
    Given a customer
    And a product for 30.00 with 1 in stock
    And an order of 1 of it
    When they cancel the order
    Then the order is cancelled and pending
    And the stock is 1 on hand, 1 available, 0 reserved and 0 committed
    When they pay with a good card
    Then that is refused with payment_closed

  Scenario: A customer cannot cancel what is paid
    Given a customer
    And a product for 30.00 with 2 in stock
    And a paid order of 2 of it
    When they cancel the order
    Then that is refused with not_cancellable
    And the order is confirmed and paid

  Scenario: An admin cancels a paid order, and the money goes back
    Given a customer
    And a product for 30.00 with 2 in stock
    And a paid order of 2 of it
    When an admin cancels the order
    Then the order is cancelled and refunded
    And the stock is 2 on hand, 2 available, 0 reserved and 0 committed

  Scenario: An order that nobody pays expires, and its goods go back on sale
    Given a mart that keeps goods for 2 seconds
    And a customer
    And a product for 30.00 with 3 in stock
    And an order of 2 of it
    Then the order expires
    And the stock is 3 on hand, 3 available, 0 reserved and 0 committed
    When they pay with a good card
    Then that is refused with payment_closed
