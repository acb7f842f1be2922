//! The cases of the book that origins share, on both of its engines: the same calls get the same answers, leave the same book,
//! and tell the same in the log, in plain Rust and on a Redis that was started for it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::RedisAddress;
use engine::{Redis, redis};
use wire::{Chain, Epoch, Position, Role};

use super::calls::{CallError, Calls};
use super::{Acked, Arbiter, Asked, Distrust, Elsewhere, Entry, Line, Recalled, Table, Verdict, Who};

const LEASE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// A Redis that ends with its test.
struct Server {
    process: Child,
    redis: Redis,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Somebody else may take the port before it does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(folder.path())
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server is not installed: apt-get install redis-server");
            let urls = vec![format!("redis://127.0.0.1:{port}").parse().unwrap()];
            let address = RedisAddress { key: "origin.journal".to_owned(), urls, cluster: false, user: None, password: None, ca: None };
            let redis = Redis::open(&address, PATIENCE).unwrap();
            for _ in 0..100 {
                if redis.call::<String>(&redis::cmd("PING")).await.is_ok() {
                    return Self { process, redis, _folder: folder };
                }
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let _ = process.kill();
        }
        panic!("no redis-server came up");
    }
}

/// One book on both engines: each call is made on both, which must agree.
struct Both {
    arbiter: Arbiter,
    calls: Calls,
    server: Server,
}

/// What both engines answer alike: an error that is not the book's own ends the test.
fn own<T>(answer: Result<T, CallError>) -> Result<T, Elsewhere> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(CallError::Elsewhere(elsewhere)) => Err(elsewhere),
        Err(error) => panic!("{error}"),
    }
}

fn agreed<T: PartialEq + std::fmt::Debug>(plain: T, on_redis: T) -> T {
    assert_eq!(plain, on_redis, "plain Rust and Redis");
    plain
}

fn epoch(of: u8) -> Epoch {
    Epoch::from_bytes([of; 8])
}

fn edge(name: &str) -> Who {
    (Role::Edge, name.parse().unwrap())
}

fn asked(name: &str, life: &str, seq: u64) -> Asked {
    Asked { who: edge(name), life: life.to_owned(), seq, lease: LEASE, is_laggard: false, news: String::new() }
}

impl Both {
    async fn new() -> Self {
        let server = Server::start().await;
        let id = server.redis.inspect().await.unwrap().run;
        let calls = Calls::new(server.redis.clone(), "net", None, Duration::ZERO);
        let mut both = Self { arbiter: Arbiter::new(&id), calls, server };
        both.set_journal(1, 0).await;
        both
    }

    async fn set_journal(&mut self, of: u8, seq: u64) {
        self.arbiter.set_journal(epoch(of), seq);
        let mut set = redis::cmd("HSET");
        set.arg("{net}:atoll-journal:1:head").arg("epoch").arg(epoch(of).to_string()).arg("seq").arg(seq);
        self.server.redis.call::<u64>(&set).await.unwrap();
    }

    async fn distrust(&mut self, known: &str, name: &str, head: u64) -> Result<String, Elsewhere> {
        let why = Distrust { known, name, epoch: epoch(1), head, longest: LEASE, assumed: LEASE * 60 };
        agreed(self.arbiter.distrust(&why), own(self.calls.distrust(&why).await))
    }

    async fn ack(&mut self, run: &str, of: u8, asked: &[Asked]) -> Result<Acked, Elsewhere> {
        agreed(self.arbiter.ack(run, epoch(of), asked), own(self.calls.ack(run, epoch(of), asked).await))
    }

    async fn one(&mut self, run: &str, asked: Asked) -> Verdict {
        self.ack(run, 1, &[asked]).await.unwrap().verdicts[0]
    }

    async fn complete(&mut self, run: &str, of: u8, seq: u64, ended: &[u64]) -> Result<Option<u64>, Elsewhere> {
        let agreed = agreed(self.arbiter.complete(run, epoch(of), seq, ended), own(self.calls.complete(run, epoch(of), seq, ended).await));
        Ok(agreed?.map(|completed| completed.seq))
    }

    async fn drain(&mut self, run: &str, who: &Who) -> Result<bool, Elsewhere> {
        agreed(self.arbiter.drain(run, who), own(self.calls.drain(run, who).await))
    }

    async fn forget(&mut self, run: &str, who: &Who, grant: u64) -> Result<bool, Elsewhere> {
        agreed(self.arbiter.forget(run, who, grant), own(self.calls.forget(run, who, grant).await))
    }

    async fn shorten(&mut self, run: &str, seen: u64) -> Result<Option<Duration>, Elsewhere> {
        agreed(self.arbiter.shorten(run, seen), own(self.calls.shorten(run, seen).await))
    }

    async fn begin_epoch(&mut self, run: &str, of: u8, seq: u64) -> Result<(), Elsewhere> {
        let head = Position { epoch: epoch(of), seq, chain: Chain::START };
        agreed(self.arbiter.begin_epoch(run, epoch(of), seq), own(self.calls.begin_epoch(run, &head).await))
    }

    async fn recall(&mut self, run: &str, known: &[Recalled]) -> Result<usize, Elsewhere> {
        agreed(self.arbiter.recall(run, epoch(1), known), own(self.calls.recall(run, epoch(1), known).await))
    }

    /// Returns the book, which must be the same, as must be all that the log says.
    async fn look(&mut self) -> Option<Table> {
        let mut reader = self.calls.reader().await.unwrap();
        let table = agreed(self.arbiter.load(), self.calls.load().await.unwrap());
        let last = table.as_ref().map_or(0, |table| table.log);
        let mut entries: Vec<Entry> = Vec::new();
        while entries.last().map_or(0, |entry| entry.number) < last {
            let after = entries.last().map_or(0, |entry| entry.number);
            entries.extend(self.calls.entries(&mut reader, after).await.unwrap());
        }
        agreed(self.arbiter.entries(0, usize::MAX), entries);
        table
    }
}

#[tokio::test]
async fn a_book_that_nobody_has_begun_is_of_no_run_and_one_origin_begins_it_for_all() {
    let mut both = Both::new().await;
    assert_eq!(both.look().await, None);
    assert_eq!(both.ack("", 1, &[asked("a", "1", 0)]).await, Err(Elsewhere::Run(String::new())));
    let run = both.distrust("", "aa", 0).await.unwrap();
    assert_eq!(both.distrust("", "bb", 0).await, Err(Elsewhere::Run(run.clone())));
    let table = both.look().await.unwrap();
    assert_eq!((table.run, table.longest), (run, LEASE), "nobody followed a journal that was just founded");
}

#[tokio::test]
async fn a_book_that_is_lost_beside_a_journal_that_is_not_assumes_the_longest_lease() {
    let mut both = Both::new().await;
    both.set_journal(1, 7).await;
    let run = both.distrust("", "aa", 3).await.unwrap();
    assert_eq!(both.look().await.unwrap().longest, LEASE * 60);
    assert_eq!(both.one(&run, asked("a", "1", 6)).await, Verdict::BelowComplete, "what the journal holds may have been complete");
    assert_eq!(both.one(&run, asked("a", "1", 7)).await, Verdict::Granted(1));
}

#[tokio::test]
async fn l2_nobody_below_what_is_complete_gets_a_lease_whichever_origin_asks() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 9).await;
    let acked = both.ack(&run, 1, &[asked("a", "1", 3), asked("b", "1", 5)]).await.unwrap();
    assert_eq!((acked.head, acked.verdicts), (9, vec![Verdict::Granted(1), Verdict::Granted(2)]));
    assert_eq!(both.complete(&run, 1, 4, &[]).await, Ok(None), "a holds it back");
    assert_eq!(both.complete(&run, 1, 4, &[1]).await, Ok(Some(4)));
    assert_eq!(both.complete(&run, 1, 3, &[]).await, Ok(Some(4)), "it is already");
    assert_eq!(both.one(&run, asked("a", "1", 3)).await, Verdict::BelowComplete);
    assert_eq!(both.one(&run, asked("a", "1", 4)).await, Verdict::Granted(3));
    assert_eq!(both.complete(&run, 1, 10, &[2, 3]).await, Ok(None), "the journal does not hold it");
    both.look().await;
}

#[tokio::test]
async fn l5_a_lease_that_was_granted_since_it_was_seen_to_end_holds_completion_back() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 1).await;
    assert_eq!(both.one(&run, asked("a", "1", 0)).await, Verdict::Granted(1));
    assert_eq!(both.one(&run, asked("a", "1", 0)).await, Verdict::Granted(2));
    assert_eq!(both.complete(&run, 1, 1, &[1]).await, Ok(None));
    assert_eq!(both.complete(&run, 1, 1, &[2]).await, Ok(Some(1)));
    both.look().await;
}

#[tokio::test]
async fn l3_a_laggard_gets_no_lease_and_what_it_says_counts_all_the_same() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 3).await;
    both.one(&run, asked("a", "1", 0)).await;
    assert_eq!(both.one(&run, Asked { is_laggard: true, ..asked("a", "1", 2) }).await, Verdict::Laggard);
    assert_eq!(both.complete(&run, 1, 2, &[]).await, Ok(Some(2)));
    both.look().await;
}

#[tokio::test]
async fn l4_a_former_life_is_not_heard_and_its_lease_still_counts() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 2).await;
    both.one(&run, asked("a", "1", 1)).await;
    both.one(&run, asked("a", "2", 2)).await;
    assert_eq!(both.one(&run, asked("a", "1", 2)).await, Verdict::Retired { anew: true });
    assert_eq!(both.complete(&run, 1, 2, &[]).await, Ok(None));
    assert_eq!(both.look().await.unwrap().named[0].former.len(), 1);
    assert_eq!(both.complete(&run, 1, 2, &[1]).await, Ok(Some(2)));
    assert_eq!(both.look().await.unwrap().named[0].former.len(), 0);
}

#[tokio::test]
async fn of_too_many_former_lives_the_oldest_count_as_one() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 99).await;
    for life in 0..40 {
        both.one(&run, asked("a", &life.to_string(), life / 2)).await;
    }
    let table = both.look().await.unwrap();
    assert_eq!((table.named[0].former.len(), table.named[0].replaced.len()), (16, 16));
    let held: Vec<u64> = table.named[0].former.iter().map(|held| held.grant.number).collect();
    assert_eq!(table.named[0].former[0].applied, 0, "what none of them had applied");
    assert_eq!(both.complete(&run, 1, 19, &held[1..]).await, Ok(None));
    assert_eq!(both.complete(&run, 1, 19, &held).await, Ok(Some(19)));
    both.look().await;
}

#[tokio::test]
async fn a_drained_edge_stays_out_until_it_is_started_anew() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.one(&run, asked("a", "1", 0)).await;
    assert_eq!((both.drain(&run, &edge("a")).await, both.drain(&run, &edge("b")).await), (Ok(true), Ok(false)));
    assert_eq!(both.one(&run, asked("a", "1", 0)).await, Verdict::Retired { anew: false });
    both.look().await;
    assert_eq!(both.one(&run, asked("a", "2", 0)).await, Verdict::Granted(2));
    assert_eq!(both.one(&run, asked("a", "1", 0)).await, Verdict::Retired { anew: true });
    both.look().await;
}

#[tokio::test]
async fn who_was_granted_a_lease_since_is_not_forgotten() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    let dns = Asked { who: (Role::Dns, "ns".parse().unwrap()), ..asked("a", "1", 0) };
    assert_eq!(both.ack(&run, 1, &[asked("a", "1", 0), dns.clone()]).await.unwrap().verdicts.len(), 2);
    both.one(&run, asked("a", "1", 0)).await;
    assert_eq!(both.forget(&run, &edge("a"), 1).await, Ok(false));
    assert_eq!(both.forget(&run, &edge("a"), 3).await, Ok(true));
    assert_eq!(both.forget(&run, &dns.who, 2).await, Ok(true));
    assert!(both.look().await.unwrap().named.is_empty());
}

#[tokio::test]
async fn l6_the_longest_lease_is_raised_with_its_grant_and_lowered_when_the_last_one_of_that_length_is_known() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.one(&run, Asked { lease: LEASE * 3, ..asked("a", "1", 0) }).await;
    assert_eq!(both.look().await.unwrap().longest, LEASE * 3);
    both.one(&run, asked("a", "1", 0)).await;
    assert_eq!(both.shorten(&run, 0).await, Ok(None), "the caller has not seen the long one");
    assert_eq!(both.shorten(&run, 1).await, Ok(Some(LEASE)));
    assert_eq!(both.shorten(&run, 1).await, Ok(None));
    both.look().await;
}

#[tokio::test]
async fn an_epoch_begins_where_the_journal_is_and_nobody_has_applied_anything_of_it() {
    let mut both = Both::new().await;
    let run = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 3).await;
    both.one(&run, asked("a", "1", 3)).await;
    assert_eq!(both.begin_epoch(&run, 2, 3).await, Err(Elsewhere::Epoch(epoch(1))), "the journal is not there");
    both.set_journal(2, 4).await;
    assert_eq!(both.begin_epoch(&run, 2, 3).await, Ok(()));
    assert_eq!(both.begin_epoch(&run, 2, 3).await, Ok(()));
    assert_eq!(both.ack(&run, 1, &[asked("a", "1", 3)]).await, Err(Elsewhere::Epoch(epoch(2))));
    let answered = both.ack(&run, 2, &[asked("a", "1", 3), asked("a", "1", 4)]).await.unwrap();
    assert_eq!(answered.verdicts, [Verdict::BelowComplete, Verdict::Granted(2)]);
    assert_eq!(both.look().await.unwrap().complete, 0);
}

#[tokio::test]
async fn a_new_run_knows_who_follows_and_counts_no_lease_of_the_one_before() {
    let mut both = Both::new().await;
    let first = both.distrust("", "aa", 0).await.unwrap();
    both.set_journal(1, 3).await;
    let news = Asked { news: "{\"region\":\"fra/\u{fc}\"}".to_owned(), ..asked("a", "1", 2) };
    both.one(&first, news).await;
    both.one(&first, asked("a", "2", 3)).await;
    let second = both.distrust(&first, "bb", 1).await.unwrap();
    assert_eq!(both.complete(&first, 1, 3, &[]).await, Err(Elsewhere::Run(second.clone())));
    let table = both.look().await.unwrap();
    assert_eq!((table.named[0].applied, table.named[0].is_counted, table.named[0].former.len()), (3, false, 0));
    assert_eq!(both.one(&second, asked("a", "2", 2)).await, Verdict::BelowComplete);
    let known = |name: &str| Recalled { who: edge(name), life: "1".to_owned(), applied: 2, drained: true, news: String::new() };
    assert_eq!(both.recall(&second, &[known("a"), known("b")]).await, Ok(1), "only who is lost is put back");
    assert_eq!(both.one(&second, asked("b", "1", 3)).await, Verdict::Retired { anew: false });
    both.look().await;
}

#[tokio::test]
async fn a_book_that_lost_a_part_of_itself_is_of_no_run() {
    for part in ["head", "names", "lives", "edges"] {
        let mut both = Both::new().await;
        let run = both.distrust("", "aa", 0).await.unwrap();
        both.one(&run, asked("a", "1", 0)).await;
        both.server.redis.call::<u64>(redis::cmd("DEL").arg(format!("{{net}}:atoll-book:1:{part}"))).await.unwrap();
        let none = Err(Elsewhere::Run(String::new()));
        assert_eq!(own(both.calls.complete(&run, epoch(1), 0, &[]).await), none, "{part}");
        assert_eq!(both.calls.load().await.unwrap(), None, "{part}");
        let why = Distrust { known: &run, name: "bb", epoch: epoch(1), head: 0, longest: LEASE, assumed: LEASE };
        let second = own(both.calls.distrust(&why).await).unwrap();
        assert_ne!(second, run);
        assert!(own(both.calls.ack(&second, epoch(1), &[asked("a", "2", 0)]).await).is_ok(), "{part}");
    }
}

/// Numbers that look random (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn asked(&mut self, seq: u64) -> Asked {
        let role = if self.below(8) == 0 { Role::Dns } else { Role::Edge };
        let name = ["a", "b", "c"][usize::try_from(self.below(3)).unwrap()];
        let (life, seq) = (self.below(24).to_string(), self.below(seq + 1));
        let (lease, is_laggard) = (LEASE * u32::try_from(1 + self.below(2)).unwrap(), self.below(10) == 0);
        let news = if self.below(3) == 0 { format!("{{\"region\":\"r{seq}\"}}") } else { String::new() };
        Asked { who: (role, name.parse().unwrap()), life, seq, lease, is_laggard, news }
    }
}

#[tokio::test]
async fn both_engines_agree_on_any_history() {
    for seed in 0..20 {
        let mut both = Both::new().await;
        let mut chance = Chance(seed);
        let mut run = both.distrust("", "first", 0).await.unwrap();
        let (mut seq, mut of) = (0, 1);
        for step in 0..300 {
            match chance.below(40) {
                0 => run = both.distrust(&run, &format!("run{step}"), seq).await.unwrap(),
                1 => {
                    of += 1;
                    both.set_journal(of, seq).await;
                    both.begin_epoch(&run, of, seq).await.unwrap();
                }
                2 | 3 => _ = both.drain(&run, &chance.asked(0).who).await,
                4 => {
                    let (who, grant) = (chance.asked(0).who, chance.below(step + 1));
                    _ = both.forget(&run, &who, grant).await;
                }
                5 => _ = both.shorten(&run, chance.below(2 * step + 1)).await,
                6..12 => {
                    seq += 1;
                    both.set_journal(of, seq).await;
                }
                12..18 => {
                    let wanted = chance.below(seq + 2);
                    let ended: Vec<u64> = both.arbiter.counted().into_iter().filter(|_| chance.below(8) > 0).collect();
                    _ = both.complete(&run, of, wanted, &ended).await;
                }
                _ => {
                    let count = 1 + chance.below(3);
                    let asked: Vec<Asked> = (0..count).map(|_| chance.asked(seq)).collect();
                    both.ack(&run, of, &asked).await.unwrap();
                }
            }
        }
        let table = both.look().await.unwrap();
        assert!(table.log > 100, "seed {seed}: something happened");
        assert!(both.arbiter.entries(0, usize::MAX).iter().any(|entry| matches!(entry.lines[0], Line::Complete { .. })), "seed {seed}");
    }
}
