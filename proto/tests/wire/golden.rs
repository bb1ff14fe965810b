//! Golden samples: every event that was ever stored must be readable for ever.
//!
//! A file is `golden/<service>/<event type>-<version>.json` and holds the event as the log does. It is written
//! once, with the event; afterwards it is the event type, not the file, that must not change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use proto::Service;
use serde_json::Value;

use crate::samples::{self, Sample};

fn folder(service: Service) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(service.name())
}

fn file(sample: &Sample) -> PathBuf {
    folder(sample.service).join(format!("{}-{}.json", sample.event_type, sample.event_version))
}

#[test]
fn every_event_type_has_a_golden_sample() {
    let writing = env::var("GOLDEN").is_ok_and(|value| value == "write");
    let mut missing = Vec::new();
    for sample in samples::all() {
        let path = file(&sample);
        if path.exists() {
            continue;
        }
        if writing {
            fs::create_dir_all(folder(sample.service)).expect("the folder of golden samples can be made");
            let text = serde_json::to_string_pretty(&sample.stored).expect("a sample has a JSON form");
            fs::write(path, text + "\n").expect("a golden sample can be written");
        } else {
            missing.push(path.display().to_string());
        }
    }
    assert!(
        missing.is_empty(),
        "new event types need a golden sample; write it with `GOLDEN=write cargo test -p proto golden`, \
         look at it and commit it: {missing:#?}"
    );
}

#[test]
fn every_golden_sample_is_still_the_same_event() {
    let mut seen = BTreeSet::new();
    for sample in samples::all() {
        let path = file(&sample);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("there is no {}", path.display()));
        let golden: Value = serde_json::from_str(&text).expect("a golden sample is JSON");
        let stored = sample.with(golden.clone());
        let event = stored.event();
        assert_eq!(event.name(), sample.event_type, "{}", path.display());
        let again = serde_json::to_value(&event).expect("an event has a JSON form");
        assert_eq!(again, golden, "{} reads as another event", path.display());
        assert!(!stored.sent().bytes.is_empty());
        seen.insert(path);
    }
    for service in Service::ALL {
        for entry in fs::read_dir(folder(service)).expect("every service has golden samples") {
            let path = entry.expect("the folder can be read").path();
            assert!(seen.contains(&path), "{} is of no event type that is known", path.display());
        }
    }
}
