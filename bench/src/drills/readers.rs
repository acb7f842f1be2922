//! Those who read: each over its own connection, one read behind the other, every answer judged by what was promised
//! before the read began.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use super::scene::{HOT, Scene};
use crate::chance::Chance;
use crate::world::tap::Tap;

/// The pause behind a read that failed: an edge that was killed is not there at once.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

/// Connections to one edge in a sweep.
const SIDE_BY_SIDE: usize = 16;

/// Keys beside the hot ones that a sweep reads.
const SAMPLE: usize = 1000;

/// Reads at one edge until the scene is over.
pub(crate) async fn read(scene: Arc<Scene>, edge: usize, seed: u64, pause: Duration) {
    let Some(address) = scene.edges.get(edge) else { return };
    let (mut tap, mut chance) = (Tap::new(*address), Chance::new(seed));
    while !scene.is_over() {
        let key = scene.key_to_read(&mut chance);
        if !read_once(&scene, &mut tap, edge, key).await {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Reads a key and judges the answer; tells whether there was one.
pub(crate) async fn read_once(scene: &Scene, tap: &mut Tap, edge: usize, key: usize) -> bool {
    // Before the read begins, never after.
    let floor = scene.record.floor(edge, key);
    let begun = Instant::now();
    match tap.read(key).await {
        Ok(seen) => {
            scene.record.took(begun.elapsed());
            scene.record.judge(edge, key, floor, &seen);
            true
        }
        Err(_) => {
            scene.record.fail(edge);
            false
        }
    }
}

/// Reads every hot key and some others at every edge.
pub(crate) async fn sweep(scene: &Scene, seed: u64) {
    let keys = scene.truth.keys();
    let mut chance = Chance::new(seed);
    let chosen: Vec<usize> = (0..keys.min(HOT)).chain((0..SAMPLE).map(|_| chance.place(keys))).collect();
    for (edge, address) in scene.edges.iter().enumerate() {
        let lanes = stream::iter(0..SIDE_BY_SIDE).map(|lane| {
            let mine = chosen.iter().skip(lane).step_by(SIDE_BY_SIDE);
            async move {
                let mut tap = Tap::new(*address);
                for key in mine {
                    read_once(scene, &mut tap, edge, *key).await;
                }
            }
        });
        lanes.buffer_unordered(SIDE_BY_SIDE).collect::<Vec<()>>().await;
    }
}
