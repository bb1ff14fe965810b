//! `mart admin` and `mart seed`: people who run the mart, and the demo data.

use anyhow::{Context as _, bail};
use event_store::{Context, ExecuteError, Target};
use uuid::Uuid;

use aggregates::identifiers::UserId;
use aggregates::users::{Role, User, UserCommand};
use projections::Live;
use projections::users::{UserDirectory, user_directory};

use crate::cli::{AdminCommand, RoleName};
use crate::config::{Service, StorageOptions};
use crate::passwords::Passwords;
use crate::roles::maintain::{Maintenance, password_from_stdin};
use crate::services::bus;
use crate::{demo, open, text};

/// Registers administrators and gives roles.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn admin(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Create { email, username, storage } => create(&email, username, &storage).await,
        AdminCommand::Role { user, role, storage } => give_role(&user, role, &storage).await,
    }
}

async fn create(email: &str, username: Option<String>, storage: &StorageOptions) -> anyhow::Result<()> {
    let email = text::email(email).map_err(|message| anyhow::anyhow!("--email {message}"))?;
    let password = password_from_stdin()?;
    {
        use secrecy::ExposeSecret;
        text::password(password.expose_secret(), 8..=128)
            .map_err(|message| anyhow::anyhow!("the password {message}"))?;
    }
    let maintenance = Maintenance::begin(storage, &[Service::Users]).await?;
    open::migrate(&maintenance.sources.logs).await?;
    let log = maintenance.sources.logs.get("users").cloned().context("the log of users is not open")?;
    let users = bus::<User>(&log);
    let password_hash = Passwords::new().hash(password).await?;
    let user_id = UserId(Uuid::now_v7());
    let command = UserCommand::Register {
        user_id,
        email: email.clone(),
        username,
        first_name: String::new(),
        last_name: String::new(),
        phone: None,
        password_hash,
        role: Role::Admin,
    };
    match users.execute(Target::New(user_id.to_string()), command, Context::default()).await {
        Ok(_) => println!("{email} is an admin: {user_id}"),
        Err(ExecuteError::ClaimTaken { scope }) => {
            bail!("the {scope} belongs to another user: give them the role with `mart admin role`")
        }
        Err(error) => bail!("the admin cannot be registered: {error}"),
    }
    maintenance.end().await;
    Ok(())
}

async fn give_role(user: &str, role: RoleName, storage: &StorageOptions) -> anyhow::Result<()> {
    let maintenance = Maintenance::begin(storage, &[Service::Users]).await?;
    open::migrate(&maintenance.sources.logs).await?;
    let log = maintenance.sources.logs.get("users").cloned().context("the log of users is not open")?;
    let directory: Live<UserDirectory> = Live::new(log.clone());
    let found = match Uuid::parse_str(user) {
        Ok(id) => directory.find(&id.to_string()).await?,
        Err(_) => user_directory::find_user_by_login(&directory, user).await?,
    };
    let Some(found) = found else { bail!("there is no user {user}") };
    let role = match role {
        RoleName::Customer => Role::Customer,
        RoleName::Staff => Role::Staff,
        RoleName::Admin => Role::Admin,
    };
    let other_admins = user_directory::has_other_admins(&directory, found.id).await?;
    let users = bus::<User>(&log);
    let command = UserCommand::GrantRole { role, other_admins };
    match users.execute(Target::Existing(found.id.to_string()), command, Context::default()).await {
        Ok(_) => println!("{user} has the role now"),
        Err(error) => bail!("the role cannot be given: {error}"),
    }
    maintenance.end().await;
    Ok(())
}

/// Fills an empty mart.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn seed(storage: StorageOptions) -> anyhow::Result<()> {
    let maintenance = Maintenance::begin(&storage, &Service::ALL).await?;
    open::migrate(&maintenance.sources.logs).await?;
    let services = open::for_maintenance(&maintenance.sources, &storage)?;
    if demo::fill_empty(&services).await? {
        println!("the mart has people, products and stock now; the password of all is {}", demo::PASSWORD);
    } else {
        println!("the mart is not empty; nothing was stored");
    }
    drop(services);
    maintenance.end().await;
    Ok(())
}
