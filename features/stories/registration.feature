Feature: Registering and logging in

  Scenario: Somebody new registers, is welcomed and logs in
    When John registers
    Then he is told who he is, without his password
    And he can log in with his e-mail address and with his username
    And these mails were sent, each once: registration

  Scenario: An e-mail address belongs to one account
    Given a customer
    When somebody else registers with the same e-mail address
    Then that is refused with 409, as the email is taken

  Scenario: Who does not know the password stays outside, and does not learn who has an account
    Given a customer
    When somebody logs in with a wrong password
    And somebody logs in with an unknown name
    Then both were refused alike

  Scenario: A session goes on with a refresh token that works once
    Given a customer
    When they refresh their tokens
    Then the new access token works
    And the old refresh token does not

  Scenario: A customer leaves for good
    Given a customer
    When they erase their account
    Then their token is dead
    And their e-mail address can be registered anew
