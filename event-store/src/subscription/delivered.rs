//! Events as subscribers get them.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::log::Log;
use crate::read_once::ReadOnce;
use crate::{Recorded, Result};

/// An event handed to a subscriber. Copies are cheap, and share what was read in it.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The log it is from.
    pub source: Arc<str>,
    event: Arc<ReadOnce>,
    /// The message of its topic, if it came as one.
    message: Option<Bytes>,
}

/// The two forms an event comes in.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// As it is stored: JSON, personal fields opened where the reader may open them.
    Stored(&'a str),
    /// As it is published: the message of its topic, without personal data.
    Published(&'a Bytes),
}

impl Delivered {
    /// An event read from a log.
    pub fn stored(source: impl Into<Arc<str>>, event: impl Into<Arc<ReadOnce>>) -> Self {
        Self { source: source.into(), event: event.into(), message: None }
    }

    /// An event that came as the message of a topic, and what that says of it. Its payload is not looked at.
    pub fn published(source: &str, event: Recorded, message: Bytes) -> Self {
        Self { source: source.into(), event: event.into(), message: Some(message) }
    }

    /// What it says.
    pub fn body(&self) -> Body<'_> {
        match &self.message {
            Some(message) => Body::Published(message),
            None => Body::Stored(&self.payload),
        }
    }

    /// What `read` makes of the event, or has made of it for another subscriber of this process: so it must depend on
    /// nothing else.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_as<T: Any + Send + Sync, E>(
        &self,
        read: impl FnOnce(&Self) -> std::result::Result<T, E>,
    ) -> std::result::Result<Arc<T>, E> {
        self.event.read_as(|| read(self))
    }

    /// Opens the personal fields of a stored event; those of an erased person become `null`. Only for this reader.
    ///
    /// # Errors
    /// When the person's key cannot be read.
    pub async fn open(&mut self, log: &Log) -> Result<()> {
        if self.message.is_none() && self.metadata.person.is_some() {
            let mut opened = Recorded::clone(self);
            opened.open(log.personal()).await?;
            self.event = opened.into();
        }
        Ok(())
    }
}

impl Deref for Delivered {
    type Target = Recorded;

    fn deref(&self) -> &Recorded {
        &self.event
    }
}
