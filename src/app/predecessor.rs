//! The new process's side of an upgrade: it was started by the one that serves, gets its sockets, and takes over when it could
//! serve itself.

use std::io;
use std::sync::Arc;

use tracing::warn;

use super::StartError;
use crate::system::handover::{AsyncChannel, Channel, Word};
use crate::system::passed::PassedSocket;

/// The process that serves until we do. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Predecessor {
    channel: Arc<Channel>,
}

impl Predecessor {
    /// `None`: this process was not started by one that wants to hand over.
    pub fn of_environment() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none_or(|said| said != STDIN) {
            return Ok(None);
        }
        Ok(Some(Self { channel: Arc::new(Channel::of_stdin()?) }))
    }

    /// What it listens on, once.
    pub(super) fn sockets(&self) -> Result<Vec<PassedSocket>, StartError> {
        self.channel.receive_sockets().map_err(StartError::Handover)
    }

    /// Says that we are ready and waits until it accepts no more. One that ends without a word has left it all to us.
    pub(super) async fn take_over(&self) -> Result<(), StartError> {
        let channel: AsyncChannel = self.channel.try_clone().and_then(Channel::into_async).map_err(StartError::Handover)?;
        if let Err(error) = channel.say(&Word::Ready).await {
            warn!(%error, "The process before this one has ended without a word");
            return Ok(());
        }
        match channel.hear().await.map_err(StartError::Handover)? {
            Some(Word::Yours) | None => Ok(()),
            Some(_) => Err(StartError::TooLate),
        }
    }

    /// It goes on, and says why.
    pub fn refuse(&self, why: &str) {
        // If it is gone, there is nobody to tell.
        let _ = self.channel.say(&Word::Refused(why.to_owned()));
    }
}

/// Says that standard input is the other end.
pub const VARIABLE: &str = "POINTSMAN_UPGRADE";
pub const STDIN: &str = "stdin";
