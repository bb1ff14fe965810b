Feature: Buying

  Scenario: From the cart to the confirmed order
    Given a customer
    And a product for 999.99 with 10 in stock
    When they put 2 of it into their cart
    Then the cart costs 1999.98
    When they check out
    Then the order awaits a payment of 1999.98
    And the cart is empty
    And the stock is 10 on hand, 8 available, 2 reserved and 0 committed
    When they pay with a good card
    Then the order is confirmed and paid
    And the stock is 10 on hand, 8 available, 0 reserved and 2 committed
    And these mails were sent, each once: registration, order_received, payment_received
    And the history of the order goes from OrderPlaced to OrderConfirmed

  Scenario: A product that is sold out can be bought again when goods come in
    Given a customer
    And a product for 10.00 with 1 in stock
    When they order 2 of it
    Then that is refused with insufficient_stock, 1 being available
    And the stock is 1 on hand, 1 available, 0 reserved and 0 committed
    When 1 more comes in
    And they order 2 of it
    Then the order awaits a payment of 20.00

  Scenario: A declined card changes nothing, and another one can be tried
    Given a customer
    And a product for 25.50 with 3 in stock
    And an order of 3 of it
    When they pay with a declined card
    Then that is refused with card_declined
    And the order is awaiting_payment and failed
    And the stock is 3 on hand, 0 available, 3 reserved and 0 committed
    When they pay with a good card
    Then the order is confirmed and paid

  Scenario: A gateway that is slow to answer takes the money once
    Given a customer
    And a product for 5.00 with 2 in stock
    And an order of 1 of it
    When they pay with a silent card
    Then the payment goes on
    And the order is confirmed and paid

  Scenario: Two sales in a row need nobody to wait
    Given a customer
    And a product for 7.00 with 5 in stock
    And a paid order of 1 of it
    And a paid order of 2 of it
    Then the stock is 5 on hand, 2 available, 0 reserved and 3 committed

  Scenario: An order is shipped, delivered and comes back
    Given a customer
    And a product for 12.00 with 4 in stock
    And a paid order of 2 of it
    When the staff ships the order
    Then the order is shipped and paid
    And the stock is 2 on hand, 2 available, 0 reserved and 0 committed
    When the staff delivers the order
    Then the order is delivered and paid
    When they send the order back
    Then the order is returned and refunded
    And the stock is 4 on hand, 4 available, 0 reserved and 0 committed
