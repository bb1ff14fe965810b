//! The published files are documentation: what they describe is complete, explained and the same everywhere.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use proto::{FILE_DESCRIPTOR_SET, Service};

use crate::samples;

/// The first field number that belongs to an event and not to its envelope.
const FIRST_EVENT_FIELD: i32 = 20;

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the descriptors can be read");
    set.file.into_iter().filter(|file| file.package().starts_with("mart.")).collect()
}

fn message(name: &str) -> DescriptorProto {
    let (package, name) = name.rsplit_once('.').expect("a full name has a package");
    files()
        .into_iter()
        .filter(|file| file.package() == package)
        .flat_map(|file| file.message_type)
        .find(|message| message.name() == name)
        .unwrap_or_else(|| panic!("{package} has no {name}"))
}

/// The values of all enums, in the form they are stored.
pub(crate) fn choices() -> BTreeSet<String> {
    files()
        .into_iter()
        .flat_map(|file| file.enum_type)
        .flat_map(|choice| {
            let first = choice.value.first().expect("a choice has values");
            let prefix = first.name().strip_suffix("UNSPECIFIED").expect("a choice starts with unspecified");
            let stored = |name: &str| name.strip_prefix(prefix).map(str::to_lowercase);
            choice.value.iter().skip(1).filter_map(|value| stored(value.name())).collect::<Vec<_>>()
        })
        .collect()
}

fn event_message(service: Service) -> DescriptorProto {
    let mut name = service.name().to_owned();
    name[..1].make_ascii_uppercase();
    message(&format!("mart.{service}.v1.{name}Event"))
}

#[test]
fn all_services_have_the_same_envelope() {
    let shape = |message: &DescriptorProto| -> Vec<(i32, String, String, i32)> {
        message
            .field
            .iter()
            .filter(|field| field.number() < FIRST_EVENT_FIELD)
            .map(|field| {
                (
                    field.number(),
                    field.name().to_owned(),
                    field.type_name().to_owned(),
                    field.r#type.unwrap_or(0),
                )
            })
            .collect()
    };
    let envelope = shape(&message("mart.common.v1.EventEnvelope"));
    assert_eq!(envelope.len(), 13);
    for service in Service::ALL {
        assert_eq!(shape(&event_message(service)), envelope, "{service}");
    }
}

#[test]
fn every_event_of_a_service_has_a_message_in_its_choice() {
    for service in Service::ALL {
        let published: BTreeSet<String> = event_message(service)
            .field
            .iter()
            .filter(|field| field.number() >= FIRST_EVENT_FIELD)
            .map(|field| field.type_name().rsplit('.').next().unwrap_or_default().to_owned())
            .collect();
        let known: BTreeSet<String> = samples::all()
            .into_iter()
            .filter(|sample| sample.service == service)
            .map(|sample| sample.event_type)
            .collect();
        assert_eq!(published, known, "{service}");
    }
}

#[test]
fn the_messages_have_exactly_the_fields_that_are_not_withheld() {
    for sample in samples::all() {
        let fields: BTreeSet<String> =
            message(sample.sent().message_type).field.iter().map(|field| field.name().to_owned()).collect();
        let stored = sample.stored[&sample.event_type].as_object().cloned().unwrap_or_default();
        let event = sample.event();
        let expected: BTreeSet<String> = stored
            .keys()
            .filter(|field| !event.withheld_fields().contains(&field.as_str()))
            .cloned()
            .collect();
        assert_eq!(fields, expected, "{}", sample.event_type);
    }
}

#[test]
fn choices_start_with_unspecified() {
    for file in files() {
        for choice in &file.enum_type {
            let first = choice.value.first().expect("a choice has values");
            assert_eq!(first.number(), 0);
            assert!(first.name().ends_with("_UNSPECIFIED"), "{}", first.name());
        }
    }
}

/// Paths into a file, as in `google.protobuf.SourceCodeInfo`: pairs of a field number of the descriptor
/// (named beside it) and an index.
fn paths_of(file: &FileDescriptorProto) -> Vec<Vec<i32>> {
    let indices = |count: usize| 0..i32::try_from(count).expect("a file has few items");
    let mut paths = Vec::new();
    for (index, message) in indices(file.message_type.len()).zip(&file.message_type) {
        paths.push(vec![4, index]); // message_type
        paths.extend(indices(message.field.len()).map(|field| vec![4, index, 2, field])); // field
    }
    for (index, choice) in indices(file.enum_type.len()).zip(&file.enum_type) {
        paths.push(vec![5, index]); // enum_type
        paths.extend(indices(choice.value.len()).map(|value| vec![5, index, 2, value])); // value
    }
    for (index, service) in indices(file.service.len()).zip(&file.service) {
        paths.push(vec![6, index]); // service
        paths.extend(indices(service.method.len()).map(|method| vec![6, index, 2, method])); // method
    }
    paths
}

#[test]
fn everything_published_is_explained() {
    for file in files() {
        let source = file.source_code_info.clone().expect("the descriptors keep the comments");
        for path in paths_of(&file) {
            let explained = source
                .location
                .iter()
                .any(|location| location.path == path && !location.leading_comments().trim().is_empty());
            assert!(explained, "{}: nothing explains {path:?}", file.name());
        }
    }
}
