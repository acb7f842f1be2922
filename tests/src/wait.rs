//! Waiting for what a real socket will bring: by looking again, never by sleeping for luck.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything may take. It is generous: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until what is looked for is there, and returns it.
///
/// # Errors
/// With the last thing that was seen, when patience ends.
pub async fn eventually<T, Look, Looking>(what: &str, mut look: Look) -> Result<T>
where
    Look: FnMut() -> Looking,
    Looking: Future<Output = Result<T>>,
{
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > PATIENCE => bail!("waited {PATIENCE:?} for {what}; the last thing seen: {error:#}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
