//! Whether this node is still the current one (S8).

use super::core::Core;
use crate::{ErrorKind, Result};

impl Core {
    /// Looks, unless it looked within the bound.
    pub(crate) async fn check_current(&self) -> Result<()> {
        self.session()?;
        if self.metadata.seen_current_within(self.config.staleness()) {
            return Ok(());
        }
        let looked = self.metadata.look().await;
        if let Err(error) = &looked
            && error.kind() == ErrorKind::Fenced
        {
            self.end(error.clone());
        }
        looked
    }
}
