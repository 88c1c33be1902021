//! Who we are to the directory: registered once, then the same for all proxies, under `/acme/account`.

use instant_acme::{Account, AccountBuilder, AccountCredentials, ExternalAccountKey, NewAccount};
use serde_json::{Value as Json, json};
use tracing::{info, warn};

use super::directory::Directory;
use super::trouble::Trouble;
use crate::config::AcmeConfig;
use crate::registry::{Committed, Key, Locked, LockedEdit};

/// The account of the registry, or a new one that is in the registry by now. With `anew` the one there counts for nothing.
pub async fn account(config: &AcmeConfig, directory: &Directory, locked: &Locked, anew: bool) -> Result<Account, Trouble> {
    let kept = match locked.get(&Key::AcmeAccount).await? {
        Some(value) if !anew => kept(config, &value),
        _ => None,
    };
    let builder = || Account::builder_with_http(Box::new(directory.clone()));
    let Some(Kept { credentials, email }) = kept else { return register(config, builder(), locked).await };
    let key = credentials_json(&credentials)?;
    let account = builder().from_credentials(credentials).await?;
    if email != config.email {
        let contact = contact(config);
        account.update_contacts(&contact.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        keep(config, key, locked).await?;
        info!(directory = config.directory, "The ACME account has another address");
    }
    Ok(account)
}

async fn register(config: &AcmeConfig, builder: AccountBuilder, locked: &Locked) -> Result<Account, Trouble> {
    let contact = contact(config);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    // That they were agreed to, the configuration has said.
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = config.external_account.as_ref().map(|known| ExternalAccountKey::new(known.id.clone(), &known.key()));
    let (account, credentials) = builder.create(&new, config.directory.clone(), external.as_ref()).await?;
    keep(config, credentials_json(&credentials)?, locked).await?;
    info!(directory = config.directory, account = account.id(), "Registered with the ACME directory");
    Ok(account)
}

struct Kept {
    credentials: AccountCredentials,
    email: Option<String>,
}

/// `None` of what belongs to another directory, or cannot be read.
fn kept(config: &AcmeConfig, value: &[u8]) -> Option<Kept> {
    // Errors may show what they stumble over, and that is a key.
    let record: Json = serde_json::from_slice(value).ok()?;
    if record["directory"].as_str() != Some(&config.directory) {
        return None;
    }
    match serde_json::from_value(record["credentials"].clone()) {
        Ok(credentials) => Some(Kept { credentials, email: record["email"].as_str().map(str::to_owned) }),
        Err(_) => {
            warn!("The ACME account in the registry cannot be read; a new one is registered");
            None
        }
    }
}

async fn keep(config: &AcmeConfig, credentials: Json, locked: &Locked) -> Result<(), Trouble> {
    let record = json!({ "v": 1, "directory": config.directory, "email": config.email, "credentials": credentials });
    match locked.commit(vec![LockedEdit::Put(Key::AcmeAccount, record.to_string().into_bytes())]).await? {
        Committed::At { .. } => Ok(()),
        Committed::NotOurs => Err(Trouble::NotOurs),
    }
}

fn credentials_json(credentials: &AccountCredentials) -> Result<Json, Trouble> {
    serde_json::to_value(credentials).map_err(|_| Trouble::Directory("the account's key cannot be written down".to_owned()))
}

fn contact(config: &AcmeConfig) -> Vec<String> {
    config.email.iter().map(|email| format!("mailto:{email}")).collect()
}
