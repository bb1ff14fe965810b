Feature: Rebuilding read models while the shop is open

  Scenario: The orders are rebuilt while customers go on buying
    Given a customer
    And a product for 3.00 with 100 in stock
    And a paid order of 1 of it
    And an order of 2 of it
    And a paid order of 3 of it
    When the order_details are rebuilt while they buy 10 more
    Then all their 13 orders read as before, and the new ones are there too
    And the rebuilt read models equal the events
