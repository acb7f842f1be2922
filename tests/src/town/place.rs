//! An origin's place in a town, and the cables that lead there.

use std::path::{Path, PathBuf};

use anyhow::Result;
use config::Settings;
use origin::Origin;

use super::Plan;
use crate::{Cable, eventually};

/// An origin, whether it runs or not.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) text: String,
    pub(super) settings: Settings,
    /// The cable to what it shares with others.
    pub(super) shared: Cable,
    pub(super) running: Option<origin::Running>,
    /// It runs, and nobody hears of it.
    pub(super) is_lost: bool,
}

impl Place {
    /// The first origin has its files where the followers have theirs; each other one has a folder of its own.
    pub(super) async fn prepare(plan: &Plan, folder: &Path, number: usize) -> Result<Self> {
        let folder = if number == 0 { folder.to_owned() } else { folder.join(format!("origin-{number}")) };
        std::fs::create_dir_all(&folder)?;
        let (file, shared) = (folder.join("atoll.toml"), Cable::lay().await?);
        if let Some(server) = plan.journal {
            shared.plug(server);
        }
        let text = plan.text(&shared);
        std::fs::write(&file, &text)?;
        let settings = Settings::from_text(&text, &file, [], [])?;
        Ok(Self { file, text, settings, shared, running: None, is_lost: false })
    }
}

/// A follower's cables, one to each origin.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) cables: Vec<Cable>,
    /// The origin that it asks first.
    first: usize,
}

impl Bundle {
    pub(super) async fn lay(count: usize, first: usize) -> Result<Self> {
        let mut cables = Vec::new();
        for _ in 0..count {
            cables.push(Cable::lay().await?);
        }
        Ok(Self { cables, first })
    }

    pub(super) fn urls(&self) -> Vec<String> {
        let count = self.cables.len();
        self.cables.iter().cycle().skip(self.first).take(count).map(Cable::url).collect()
    }
}

/// Starts an origin. The one before lets go of its journal a moment after it was stopped.
pub(super) async fn run_origin(settings: Settings) -> Result<origin::Running> {
    eventually("the origin to start", || Box::pin(Origin::new(settings.clone()).start())).await
}
