//! The delivery of messages: ask for the address, write the text, send, and say how it went.

use std::sync::Arc;
use std::time::Duration;

use event_store::append::CommandKey;
use event_store::timers::{Done, Due, Queue};
use event_store::{Context, ExecuteError, crash_point};
use uuid::Uuid;

use aggregates::identifiers::{NotificationId, derive};
use aggregates::notifications::notices::{self, Notices, NoticesJob};
use aggregates::notifications::{Channel, DeliveryError, Notification, NotificationCommand, Progress, texts};
use aggregates::process::ProcessManager;

use crate::contacts::Contacts;
use crate::mail::{Message, Messenger};
use crate::services::NotificationsService;
use crate::work::Workers;
use crate::work::manager::target;

/// Messages: a slow mail server may take most of a minute.
const QUEUE: Queue = Queue { name: Notices::NAME, concurrency: 32, patience: Duration::from_secs(60) };

pub(super) fn work(
    workers: &mut Workers,
    service: NotificationsService,
    contacts: Arc<dyn Contacts>,
    messenger: Arc<dyn Messenger>,
) {
    let log = service.surroundings.log.clone();
    let handle = move |due: Due| {
        let (service, contacts, messenger) = (service.clone(), Arc::clone(&contacts), Arc::clone(&messenger));
        async move { carry_out(&service, contacts.as_ref(), messenger.as_ref(), due).await }
    };
    workers.work_off(&log, QUEUE, handle);
}

async fn carry_out(
    service: &NotificationsService,
    contacts: &dyn Contacts,
    messenger: &dyn Messenger,
    due: Due,
) -> Done {
    let job = match serde_json::from_value(due.command.clone()) {
        Ok(job) => job,
        Err(error) => return Done::Failed(format!("an unreadable job: {error}")),
    };
    let NoticesJob::Deliver { notification_id } = job;
    deliver(service, contacts, messenger, notification_id, &due).await
}

async fn deliver(
    service: &NotificationsService,
    contacts: &dyn Contacts,
    messenger: &dyn Messenger,
    id: NotificationId,
    due: &Due,
) -> Done {
    // At the first attempt nobody else has tried, unless another process had the event before, and was lost. Without others
    // what is remembered will do when it says that it waits.
    let may_remember = due.attempts == 1 && service.surroundings.log.signal().is_alone();
    let remembered = may_remember.then(|| service.notifications.remembered(&id.to_string())).flatten();
    let known = remembered.map(|known| known.aggregate);
    let waits =
        |known: &Notification| matches!(known, Notification::Queued { progress: Progress::Waiting, .. });
    let notification = match known.filter(waits) {
        Some(known) => known,
        None => match service.notifications.load(&id.to_string()).await {
            Ok(loaded) => loaded.aggregate,
            Err(error) => return Done::Failed(error.to_string()),
        },
    };
    let Notification::Queued {
        user_id,
        template,
        channel,
        cause,
        order_id,
        attempts,
        progress: Progress::Waiting,
    } = notification
    else {
        return Done::Finished;
    };
    let sent = match contacts.contact(user_id.0).await {
        Err(error) => return Done::Failed(error.to_string()),
        Ok(None) => Err(DeliveryError::NoAddress),
        Ok(Some(contact)) => {
            // Before the mail, whose server may be down for long; and with the first attempt, since the others would
            // only repeat it.
            if channel == Channel::Email && attempts == 0 && contact.phone.is_some() {
                let (text, command) = notices::text_message(user_id, template, cause, order_id);
                match give(service, text, command, derive(id.0, b"text message")).await {
                    Done::Finished => {}
                    failed => return failed,
                }
            }
            let to = match channel {
                Channel::Email => Some(contact.email),
                Channel::Sms => contact.phone,
            };
            match to {
                None => Err(DeliveryError::NoAddress),
                Some(to) => {
                    let message = Message {
                        id: id.0,
                        channel,
                        to,
                        subject: texts::subject(template).to_owned(),
                        body: texts::body(template, channel, &contact.name),
                    };
                    messenger.send(&message).await
                }
            }
        }
    };
    crash_point!(
        "message-sent",
        channel.name(),
        Done::Failed("the mail server's answer was lost".to_owned())
    );
    // The number of the attempt makes the command one of its own: a retry is not the answer to the first.
    let command_id = derive(due.id, format!("attempt {attempts}").as_bytes());
    match sent {
        Ok(()) => give(service, id, NotificationCommand::RecordSent, command_id).await,
        Err(error) => {
            let retry = matches!(error, DeliveryError::Unreachable | DeliveryError::Deferred);
            match give(service, id, NotificationCommand::RecordFailed { error, retry }, command_id).await {
                Done::Finished if retry => Done::Failed(format!("{error:?}")),
                done => done,
            }
        }
    }
}

async fn give(
    service: &NotificationsService,
    id: NotificationId,
    command: NotificationCommand,
    command_id: Uuid,
) -> Done {
    let context = Context {
        key: Some(CommandKey {
            command_id,
            principal: Notices::NAME.to_owned(),
            fingerprint: Vec::new(),
            derived: true,
        }),
        ..Context::default()
    };
    let target = target(id.to_string(), command.is_first());
    match service.notifications.execute(target, command, context).await {
        Ok(_) => Done::Finished,
        Err(ExecuteError::Refused(refusal)) => {
            tracing::debug!(notification.id = %id, %refusal, "the notification had moved on");
            Done::Finished
        }
        Err(error) => Done::Failed(error.to_string()),
    }
}
