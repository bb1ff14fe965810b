//! Several processes at one aggregate: buses on logs of their own in one database.

use event_store::{Context, ExecuteError, Target};
use futures::future::join_all;

use crate::account::{Account, AccountCommand, AccountError, bus, log, new_id, open};
use crate::executing::assert_dense;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_both_succeed_from_the_same_version() {
    let (database, first_log) = log().await;
    let second_log = open(&database).await;
    let (first, second) = (bus(&first_log), bus(&second_log));
    let id = new_id();
    first
        .execute(Target::New(id.clone()), AccountCommand::Deposit { amount: 50 }, Context::default())
        .await
        .expect("accepted");
    let mut results = Vec::new();
    for _ in 0..40 {
        let withdraw = |bus: &event_store::CommandBus<Account>| {
            let (bus, id) = (bus.clone(), id.clone());
            async move {
                bus.execute(Target::Existing(id), AccountCommand::Withdraw { amount: 1 }, Context::default())
                    .await
            }
        };
        results.extend(join_all([withdraw(&first), withdraw(&second)]).await);
    }
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    let overdrawn = results
        .iter()
        .filter(|result| matches!(result, Err(ExecuteError::Refused(AccountError::Overdrawn { balance: 0 }))))
        .count();
    assert_eq!((accepted, overdrawn), (50, 30));
    assert_dense(&first_log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_race_for_a_hot_aggregate_all_get_their_commands_through() {
    const WRITERS: usize = 6;
    const COMMANDS: usize = 50;
    let (database, log) = log().await;
    let others = [open(&database).await, open(&database).await];
    let buses = [bus(&log), bus(&others[0]), bus(&others[1])];
    let id = new_id();
    // Each writer gives its next command as soon as the one before is answered, so that no process ever rests.
    let writers = buses.iter().cycle().take(WRITERS * buses.len()).cloned().map(|bus| {
        let id = id.clone();
        tokio::spawn(async move {
            for _command in 0..COMMANDS {
                let deposit = AccountCommand::Deposit { amount: 1 };
                bus.execute(Target::Existing(id.clone()), deposit, Context::default())
                    .await
                    .expect("it gets through");
            }
        })
    });
    for ended in join_all(writers).await {
        ended.expect("no command is refused");
    }
    let deposits = buses[0].load(&id).await.expect("loads").aggregate.deposits;
    assert_eq!(usize::try_from(deposits), Ok(WRITERS * buses.len() * COMMANDS));
    assert_dense(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_from_a_stale_cache_is_decided_anew() {
    let (database, first_log) = log().await;
    let second_log = open(&database).await;
    let (first, second) = (bus(&first_log), bus(&second_log));
    let id = new_id();
    let deposit = AccountCommand::Deposit { amount: 1 };
    first.execute(Target::New(id.clone()), deposit.clone(), Context::default()).await.expect("accepted");
    first
        .execute(Target::Existing(id.clone()), AccountCommand::Withdraw { amount: 1 }, Context::default())
        .await
        .expect("accepted");
    // The first process now believes the account to be empty; the second fills it.
    second.execute(Target::Existing(id.clone()), deposit, Context::default()).await.expect("accepted");
    first
        .execute(Target::Existing(id), AccountCommand::Withdraw { amount: 1 }, Context::default())
        .await
        .expect("the refusal would have been wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_new_as_was_thought_is_decided_on_what_the_log_has() {
    let (database, first_log) = log().await;
    let second_log = open(&database).await;
    let (first, second) = (bus(&first_log), bus(&second_log));
    let id = new_id();
    let give = |bus: &event_store::CommandBus<Account>, command| {
        let (bus, id) = (bus.clone(), id.clone());
        async move { bus.execute(Target::New(id), command, Context::default()).await }
    };
    give(&first, AccountCommand::Deposit { amount: 5 }).await.expect("accepted");
    // The second process has no account yet to take this from, and nothing of it to be refused because of.
    let done = give(&second, AccountCommand::Withdraw { amount: 3 }).await.expect("there is enough");
    assert_eq!(done.sequence, 2);
    let third_log = open(&database).await;
    let refused = give(&bus(&third_log), AccountCommand::Withdraw { amount: 3 }).await;
    assert!(
        matches!(refused, Err(ExecuteError::Refused(AccountError::Overdrawn { balance: 2 }))),
        "{refused:?}"
    );
    assert_dense(&first_log).await;
}
