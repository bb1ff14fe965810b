//! The gateway's own journal tells the same as our log: no money is moved twice, unasked, or unnoticed.

use std::collections::{BTreeMap, HashMap};

use super::{Checked, Logs};
use crate::gateway::Movement;

/// What was done with an authorisation: how often it was taken and given back, and how much went back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Charge {
    promised: i64,
    captures: Vec<i64>,
    voids: usize,
    refunds: Vec<i64>,
}

pub(super) fn journals_agree(logs: &Logs, journal: &[Movement]) -> Checked {
    let mut checked = Checked::new("the gateway's journal tells the same as our log");
    let (ours, theirs) = (of_log(logs), of_journal(journal));
    for (authorisation, charge) in &theirs {
        checked.expect(ours.get(authorisation) == Some(charge), || {
            format!("the gateway has {authorisation} as {charge:?}, we as {:?}", ours.get(authorisation))
        });
        checked.expect(charge.captures.len() <= 1, || {
            format!("{authorisation} was taken more than once: {charge:?}")
        });
    }
    for (authorisation, charge) in &ours {
        checked.expect(theirs.contains_key(authorisation), || {
            format!("the gateway knows nothing of {authorisation}, which we have as {charge:?}")
        });
    }
    checked
}

fn of_journal(journal: &[Movement]) -> BTreeMap<String, Charge> {
    let mut charges: BTreeMap<String, Charge> = BTreeMap::new();
    for movement in journal {
        let charge = charges.entry(movement.authorisation.clone()).or_default();
        match movement.what.as_str() {
            "authorisations" => charge.promised += movement.amount,
            "captures" => charge.captures.push(movement.amount),
            "voids" => charge.voids += 1,
            _ => charge.refunds.push(movement.amount),
        }
    }
    charges
}

fn of_log(logs: &Logs) -> BTreeMap<String, Charge> {
    let mut charges: BTreeMap<String, Charge> = BTreeMap::new();
    // Later events do not name the charge: it is the latest of their payment.
    let mut latest: HashMap<&str, String> = HashMap::new();
    for event in logs.of_type("payment") {
        let amount = event.body["amount"]["minor"].as_i64().unwrap_or_default();
        if event.name == "PaymentAuthorised" {
            let reference = event.text("gateway_reference").to_owned();
            charges.entry(reference.clone()).or_default().promised += amount;
            latest.insert(&event.aggregate_id, reference);
            continue;
        }
        let Some(charge) = latest.get(event.aggregate_id.as_str()).and_then(|latest| charges.get_mut(latest))
        else {
            continue;
        };
        match event.name.as_str() {
            "PaymentCaptured" => charge.captures.push(amount),
            "PaymentVoided" => charge.voids += 1,
            "PaymentRefunded" => charge.refunds.push(amount),
            _ => {}
        }
    }
    charges
}
