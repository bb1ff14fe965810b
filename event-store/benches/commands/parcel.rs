//! The aggregate the rows speak of: a parcel that is scanned on its way. Its event is about 250 bytes of JSON
//! and its state is small, so that a row measures the engine and not the domain.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

const NOTE: &str = "sorted by hand because the label was folded over the edge, then sent on with the evening \
                    lorry to the northern depot";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parcel {
    scans: u64,
    weight_grams: u64,
    last_depot: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScanParcel {
    pub(crate) depot: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParcelScanned {
    depot: u32,
    belt: String,
    weight_grams: u64,
    label: String,
    note: String,
}

/// Nothing refuses a scan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ParcelError {}

impl ParcelScanned {
    pub(crate) fn new(depot: u32) -> Self {
        Self {
            depot,
            belt: "north-7".to_owned(),
            weight_grams: 1_250,
            label: "0034 0434 1234 5678 9012 3456 7890".to_owned(),
            note: NOTE.to_owned(),
        }
    }
}

impl DomainEvent for ParcelScanned {
    fn event_type(&self) -> String {
        "ParcelScanned".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl Aggregate for Parcel {
    const TYPE: &'static str = "parcel";
    type Command = ScanParcel;
    type Event = ParcelScanned;
    type Error = ParcelError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ScanParcel,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ParcelError> {
        sink.write(ParcelScanned::new(command.depot), self).await;
        Ok(())
    }

    fn apply(&mut self, event: ParcelScanned) {
        self.scans += 1;
        self.weight_grams = event.weight_grams;
        self.last_depot = event.depot;
    }
}
