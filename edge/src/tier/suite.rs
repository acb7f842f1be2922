//! What both tiers must do, asked of each: a folder, and a real Redis.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use config::Network;
use follow::boottime;
use serde_json::json;

use super::{Claim, Failed, Folder, Held, Look, Rank, RedisTier, Stamp, Tier, UrlName, Variant, Write, Written};

/// How long a call may take here: a machine that is busy must not look like a Redis that breaks the rules.
const PATIENT: Duration = Duration::from_secs(10);

/// A Redis of its own, killed when it is dropped.
struct Server {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one. Where another process takes the port first, the next attempt has another port.
    async fn start(arguments: &[&str]) -> (Self, Tier) {
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let process = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(folder.path())
                .args(arguments)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is not installed: apt-get install redis-server");
            let mut server = Self { process, port, _folder: folder };
            let tier = server.tier();
            for _ in 0..500 {
                if server.process.try_wait().unwrap().is_some() {
                    break;
                }
                // A look that fails counts, so each attempt has a tier of its own.
                let (url, variant) = (url(0), plain());
                if server.tier().look(Look { url: &url, variant: &variant, known: None, claim: None }).await.is_ok() {
                    return (server, tier);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("no redis-server came up");
    }

    fn command(&self, words: &[&str]) {
        let done = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).stdout(Stdio::null()).status();
        assert!(done.unwrap().success());
    }

    fn tier(&self) -> Tier {
        let network = json!({ "regions": { "r": { "latitude": 0, "longitude": 0, "redis": { "url": format!("redis://127.0.0.1:{}", self.port), "max_entry": "4 KiB" } } } });
        let network = Network::from_json(&network).unwrap();
        let redis = network.regions.values().next().unwrap().redis.clone().unwrap();
        Tier::Redis(Box::new(RedisTier::open(&redis, "suite", PATIENT).unwrap()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn url(number: u8) -> UrlName {
    UrlName::of_bytes([number; 16])
}

fn plain() -> Variant {
    Variant { names: String::new(), selection: [0; 16] }
}

fn variant(names: &str, selection: u8) -> Variant {
    Variant { names: names.to_owned(), selection: [selection; 16] }
}

fn write(number: u8, variant: &Variant, epoch: u8, filled_at: u64, bytes: &'static str) -> Write {
    Write {
        url: url(number),
        variant: variant.clone(),
        rank: Rank { epoch: [epoch; 8], filled_at },
        bytes: Bytes::from_static(bytes.as_bytes()),
        ttl: Duration::from_secs(60),
        as_of: boottime(),
        started_ago: Duration::ZERO,
        claim: None,
    }
}

async fn look(tier: &Tier, number: u8, variant: &Variant) -> Held {
    tier.look(Look { url: &url(number), variant, known: None, claim: None }).await.unwrap()
}

async fn text(tier: &Tier, number: u8, variant: &Variant) -> String {
    match look(tier, number, variant).await {
        Held::Value { bytes, .. } => String::from_utf8(bytes.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

/// Every tier keeps these.
async fn keeps_to_the_rules(tier: &Tier) {
    // What was written is there, and as old as it is.
    assert_eq!(look(tier, 1, &plain()).await, Held::Nothing);
    let old = Write { as_of: boottime() - Duration::from_secs(5), ..write(1, &plain(), 1, 10, "one") };
    assert_eq!(tier.write(old).await, Ok(Written::Stored));
    let Held::Value { bytes, since, stamp, .. } = look(tier, 1, &plain()).await else { panic!("it was written") };
    assert_eq!(bytes, "one");
    assert!((5.0..10.0).contains(&since.as_secs_f64()), "{since:?}");
    let known = Look { url: &url(1), variant: &plain(), known: Some(stamp), claim: None };
    assert_eq!(tier.look(known).await, Ok(Held::Nothing), "what is known already is of no use");
    let older = Look { known: Some(Stamp(stamp.0 - 1000)), ..known };
    assert!(matches!(tier.look(older).await, Ok(Held::Value { .. })));

    // Of what was filled at one position the one that was asked for later stays.
    let earlier = Write { started_ago: Duration::from_secs(90), ..write(1, &plain(), 1, 10, "asked for earlier") };
    assert_eq!(tier.write(earlier).await, Ok(Written::Older));

    // P5: nothing replaces what was filled later, but what is of another epoch.
    assert_eq!(tier.write(write(1, &plain(), 1, 9, "older")).await, Ok(Written::Older));
    assert_eq!(text(tier, 1, &plain()).await, "one");
    assert_eq!(tier.write(write(1, &plain(), 1, 10, "again")).await, Ok(Written::Stored));
    assert_eq!(tier.write(write(1, &plain(), 1, u64::MAX, "latest")).await, Ok(Written::Stored));
    assert_eq!(tier.write(write(1, &plain(), 2, 3, "anew")).await, Ok(Written::Stored));
    assert_eq!(text(tier, 1, &plain()).await, "anew");

    // Variants lie side by side, and whoever asks by other fields is told which ones count.
    let [a, b] = [1, 2].map(|selection| variant("x,y", selection));
    assert_eq!(tier.write(write(2, &a, 1, 1, "a")).await, Ok(Written::Stored));
    assert_eq!(tier.write(write(2, &b, 1, 1, "b")).await, Ok(Written::Stored));
    assert_eq!((text(tier, 2, &a).await, text(tier, 2, &b).await), ("a".to_owned(), "b".to_owned()));
    assert_eq!(look(tier, 2, &plain()).await, Held::Varies("x,y".to_owned()));
    assert_eq!(look(tier, 2, &variant("x,y", 3)).await, Held::Nothing);
    assert_eq!(tier.write(write(2, &a, 1, 0, "older")).await, Ok(Written::Older));

    // Other fields begin the URL anew, unless what is there was filled later.
    assert_eq!(tier.write(write(2, &plain(), 1, 0, "older")).await, Ok(Written::Older));
    assert_eq!(tier.write(write(2, &plain(), 1, 2, "plain")).await, Ok(Written::Stored));
    assert_eq!((text(tier, 2, &plain()).await, look(tier, 2, &a).await), ("plain".to_owned(), Held::Varies(String::new())));

    // What is removed is gone, with all its variants, whatever is written next.
    assert_eq!(tier.write(write(3, &a, 1, 1, "a")).await, Ok(Written::Stored));
    tier.remove(&url(3)).await.unwrap();
    assert_eq!(tier.write(write(3, &b, 1, 1, "b")).await, Ok(Written::Stored));
    assert_eq!((look(tier, 3, &a).await, text(tier, 3, &b).await), (Held::Nothing, "b".to_owned()));
    tier.remove(&url(1)).await.unwrap();
    tier.remove(&url(1)).await.unwrap();
    assert_eq!(look(tier, 1, &plain()).await, Held::Nothing);
}

#[tokio::test]
async fn a_folder_keeps_to_the_rules_and_outlives_its_process() {
    let root = tempfile::tempdir().unwrap();
    let tier = Tier::Folder(Folder::open(root.path(), 1 << 20, PATIENT).unwrap());
    keeps_to_the_rules(&tier).await;

    let again = Tier::Folder(Folder::open(root.path(), 1 << 20, PATIENT).unwrap());
    assert_eq!(text(&again, 2, &plain()).await, "plain");
}

#[tokio::test]
async fn a_folder_stays_within_its_bytes_and_what_is_no_file_of_its_own_is_a_miss() {
    let root = tempfile::tempdir().unwrap();
    let most = 64 << 10;
    let tier = Tier::Folder(Folder::open(root.path(), most, PATIENT).unwrap());
    for number in 0..=255 {
        assert_eq!(tier.write(write(number, &plain(), 1, 1, "x")).await, Ok(Written::Stored));
    }
    assert!(tier.disk_bytes() <= most, "{}", tier.disk_bytes());
    assert_eq!(text(&tier, 255, &plain()).await, "x", "the last one is there");
    let large = Write { bytes: vec![0; 16 << 10].into(), ..write(9, &plain(), 1, 1, "") };
    assert_eq!(tier.write(large).await, Ok(Written::TooLarge));

    let file = root.path().join("ff").join(url(255).to_string());
    let good = std::fs::read(&file).unwrap();
    for bad in [b"".as_slice(), b"ATF", b"something else", &good[..20], &[b"ATF\x01\xff\xff\xff\xff".as_slice(), &good].concat()] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(look(&tier, 255, &plain()).await, Held::Nothing, "{bad:?}");
    }
    assert_eq!(tier.write(write(255, &plain(), 1, 1, "y")).await, Ok(Written::Stored));
    assert_eq!(text(&tier, 255, &plain()).await, "y");
}

#[tokio::test]
async fn a_redis_keeps_to_the_rules() {
    let (server, tier) = Server::start(&[]).await;
    // Nothing is written before its clock is known.
    assert_eq!(tier.write(write(7, &plain(), 1, 1, "x")).await, Err(Failed::As("no-clock")));
    keeps_to_the_rules(&tier).await;
    let large = Write { bytes: vec![0; 5 << 10].into(), ..write(9, &plain(), 1, 1, "") };
    assert_eq!(tier.write(large).await, Ok(Written::TooLarge));
    server.command(&["SET", &format!("suite:atoll-l2.{}:{}", super::portable::VERSION, url(10)), "foreign"]);
    assert_eq!(look(&tier, 10, &plain()).await, Held::Foreign);
    assert_eq!(look(&tier, 10, &plain()).await, Held::Nothing, "it is in nobody's way any more");
    let brief = Write { ttl: Duration::from_millis(1), ..write(8, &plain(), 1, 1, "brief") };
    assert_eq!(tier.write(brief).await, Ok(Written::Stored));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(look(&tier, 8, &plain()).await, Held::Nothing, "it is of no use any more");
}

#[tokio::test]
async fn of_those_who_miss_one_fetches_and_the_others_wait_until_it_has_written_or_given_up() {
    let (_server, tier) = Server::start(&[]).await;
    let [first, second] = ["1", "2"].map(|name| Claim(name.to_owned()));
    // No claim is given that might be for who has left, so its clock has to be known.
    tier.greet().await;
    let ask = async |claim| tier.look(Look { url: &url(1), variant: &plain(), known: None, claim: Some(claim) }).await.unwrap();
    assert_eq!((ask(&first).await, ask(&second).await), (Held::Claimed, Held::Busy));
    assert_eq!(look(&tier, 1, &plain()).await, Held::Nothing, "who would not fetch for others does not wait either");

    tier.give_up(&url(1), &plain(), &second, None).await.unwrap();
    assert_eq!(ask(&second).await, Held::Busy, "nobody gives up what is another's");
    tier.give_up(&url(1), &plain(), &first, None).await.unwrap();
    assert_eq!(ask(&second).await, Held::Claimed);

    let written = Write { claim: Some(second.clone()), ..write(1, &plain(), 1, 1, "x") };
    assert_eq!(tier.write(written).await, Ok(Written::Stored));
    assert_eq!(tier.renew(&url(1), &plain(), &second).await, Ok(false), "it was given up with the value");
    let Held::Value { stamp, .. } = ask(&first).await else { panic!("it was written") };
    let newer = Look { url: &url(1), variant: &plain(), known: Some(stamp), claim: Some(&first) };
    assert_eq!(tier.look(newer).await, Ok(Held::Claimed));
    assert_eq!(tier.renew(&url(1), &plain(), &first).await, Ok(true));
    let other = Look { variant: &variant("", 1), known: None, claim: Some(&second), ..newer };
    assert_eq!(tier.look(other).await, Ok(Held::Claimed), "another variant is another fetch");

    tier.give_up(&url(1), &plain(), &first, Some(Duration::from_secs(5))).await.unwrap();
    assert_eq!(tier.look(newer).await, Ok(Held::Nothing), "nobody waits for what can't be shared");
    assert_eq!(text(&tier, 1, &plain()).await, "x");
}

#[tokio::test]
async fn a_url_with_very_many_variants_stays_bounded() {
    let (_server, tier) = Server::start(&[]).await;
    look(&tier, 1, &plain()).await;
    for selection in 0..100 {
        assert_eq!(tier.write(write(1, &variant("x", selection), 1, 1, "v")).await, Ok(Written::Stored));
    }
    let mut there = 0;
    for selection in 0..100 {
        there += usize::from(look(&tier, 1, &variant("x", selection)).await != Held::Nothing);
    }
    assert!((1..=16).contains(&there), "{there}");
}

#[tokio::test]
async fn a_redis_that_is_full_gives_no_errors_to_who_reads() {
    let (_server, tier) = Server::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    tier.greet().await;
    let claim = Claim("1".to_owned());
    let asked = tier.look(Look { url: &url(1), variant: &plain(), known: None, claim: Some(&claim) }).await;
    assert_eq!(asked, Ok(Held::Nothing), "no claim where there is no room");
    assert_eq!(tier.write(write(1, &plain(), 1, 1, "x")).await, Err(Failed::As("refused")));
    assert!(tier.is_up(), "it refuses, and it answers");
}

#[tokio::test]
async fn a_redis_that_is_gone_is_asked_a_few_times_and_then_left_alone() {
    let (server, tier) = Server::start(&[]).await;
    look(&tier, 1, &plain()).await;
    drop(server);
    let mut how = Vec::new();
    for _ in 0..10 {
        how.push(tier.look(Look { url: &url(1), variant: &plain(), known: None, claim: None }).await.unwrap_err());
    }
    assert_eq!(how.iter().filter(|how| **how == Failed::LeftAlone).count(), 7, "{how:?}");
    assert!(!tier.is_up());
}
