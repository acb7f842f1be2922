//! What the purge table's fixed size costs: entries that no purge names, and how many of them are missed all the same after
//! a while, since some purge shares one of their slots. No process and no clock: a history from a seed.

use anyhow::Result;
use serde_json::json;
use wire::{Host, Matched, Mode, Owner, PurgeTable, Scope, Slots, Subject, Tag, Target};

use crate::chance::Chance;
use crate::figures::Voice;

/// What is cached: so many URLs of one host, with two tags each.
const URLS: usize = 20_000;

/// Purges of one tag each, a second.
const RATES: [u64; 7] = [10, 30, 100, 300, 1000, 3000, 10_000];

/// How old the entries are when they are asked for.
const AGES_S: [u64; 3] = [1, 10, 60];

/// Tags that are purged, none of them an entry's.
const FOREIGN_TAGS: u64 = 10_000_000;

/// Histories, each with a key of its own.
const SEEDS: u64 = 5;

/// An entry, filled before the history begins.
struct Entry {
    target: Target,
    slots: Slots,
}

pub(crate) fn measure(voice: Voice) -> Result<()> {
    voice.tell(
        &format!(
            "misses: of {URLS} URLs with 2 tags that no purge names, how many miss by shared slots (median of {SEEDS}, least to most)"
        ),
        &json!({ "what": "misses", "urls": URLS, "tags": 2, "histories": SEEDS }),
    );
    voice.tell(&row("purges/s", &AGES_S.map(|age| format!("aged {age} s"))), &json!({ "ages_s": AGES_S }));
    for rate in RATES {
        let mut shares: [Vec<f64>; AGES_S.len()] = Default::default();
        for seed in 1..=SEEDS {
            shares.iter_mut().zip(history(rate, seed)?).for_each(|(shares, share)| shares.push(share));
        }
        shares.iter_mut().for_each(|shares| shares.sort_by(f64::total_cmp));
        let cells = shares.each_ref().map(|shares| cell(shares));
        voice.tell(&row(&rate.to_string(), &cells), &json!({ "purges_per_second": rate, "shares": shares }));
    }
    Ok(())
}

fn row(first: &str, cells: &[String]) -> String {
    cells.iter().fold(format!("  {first:>8}"), |row, cell| format!("{row}  {cell:>28}"))
}

/// The middle of sorted shares, and their ends.
fn cell(shares: &[f64]) -> String {
    let at = |place: usize| shares.get(place).copied().unwrap_or_default() * 100.0;
    format!("{:.2} % ({:.2} to {:.2})", at(shares.len() / 2), at(0), at(shares.len().saturating_sub(1)))
}

/// Plays one history, and returns the share of entries that miss at each age.
fn history(rate: u64, seed: u64) -> Result<Vec<f64>> {
    let mut chance = Chance::new(seed);
    let mut key = [0; 16];
    let (first, second) = key.split_at_mut(8);
    first.copy_from_slice(&chance.draw().to_be_bytes());
    second.copy_from_slice(&chance.draw().to_be_bytes());
    let (table, owner, host) = (PurgeTable::new(key), Owner::default(), "a.test".parse::<Host>()?);
    let entries = (0..URLS).map(|url| entry(&table, &owner, &host, url)).collect::<Result<Vec<_>>>()?;
    let mut shares = Vec::new();
    let mut seq = 0;
    for age in AGES_S {
        while seq < rate * age {
            seq += 1;
            let tag: Tag = format!("foreign-{}", chance.below(FOREIGN_TAGS)).parse()?;
            table.apply(seq, &owner, Mode::Hard, &[Scope::Tag(tag)]);
        }
        let missed = entries.iter().filter(|entry| table.matched(&entry.slots, &host, &entry.target, 0) != Matched::Nothing);
        shares.push(f64::from(u32::try_from(missed.count())?) / f64::from(u32::try_from(URLS)?));
    }
    Ok(shares)
}

fn entry(table: &PurgeTable, owner: &Owner, host: &Host, url: usize) -> Result<Entry> {
    let target: Target = format!("/p/{url}").parse()?;
    let tags: [Tag; 2] = [format!("product-{url}").parse()?, format!("list-{}", url % 100).parse()?];
    let slots = table.slots(&Subject { owner, host, sent: &target, keyed: None, tags: &tags });
    Ok(Entry { target, slots })
}
