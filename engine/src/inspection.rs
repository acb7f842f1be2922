//! What a Redis says of itself, and whether what it acknowledged outlives its end. Pure.

use std::collections::BTreeMap;

use redis::Value;

/// What a Redis says of itself (INFO, CONFIG GET). What it does not tell is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The version: of Valkey its own, else that of Redis.
    pub version: String,
    /// Whether it is a Valkey.
    pub is_valkey: bool,
    /// The random id of this life of the process.
    pub run: String,
    /// Whether it takes writes.
    pub is_master: bool,
    /// How many replicas are connected to it.
    pub replicas: u64,
    /// When writes reach the disk.
    pub appends: Appends,
    /// Whether it syncs nothing while it writes its log anew, whatever `appends` says.
    pub pauses_syncing: bool,
    /// How many replicas must be connected for it to take writes.
    pub least_replicas: u64,
    /// Whether its user `default` may do everything, by which it reads its log; nothing where it does not tell.
    pub may_replay: Option<bool>,
    /// Whether the last write of its log failed.
    pub is_log_failing: bool,
    /// Whether it reads its files still.
    pub is_loading: bool,
    /// What it throws away when it is full, where it is bounded.
    pub evicts: Option<String>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// The bytes that it may use at the most, 0 where it is not bounded.
    pub max_bytes: u64,
}

/// When what a Redis acknowledged is on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Appends {
    /// Before it is acknowledged.
    Always,
    /// Later, by this setting.
    Later(String),
    /// Never: it keeps no log.
    Never,
    /// It does not tell.
    #[default]
    Untold,
}

impl Inspection {
    /// Reads the answers to INFO, to CONFIG GET and to ACL GETUSER.
    pub(crate) fn read(info: &str, settings: &[(String, String)], user: Option<&BTreeMap<String, Value>>) -> Self {
        let info: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let setting = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let text = |name: &str| info.get(name).copied().unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let valkey = info.get("valkey_version").copied();
        let max_bytes = number("maxmemory");
        Self {
            version: valkey.unwrap_or_else(|| text("redis_version")).to_owned(),
            is_valkey: valkey.is_some(),
            run: text("run_id").to_owned(),
            is_master: text("role") == "master",
            replicas: number("connected_slaves"),
            appends: match (info.get("aof_enabled").copied(), setting("appendfsync")) {
                (None, _) => Appends::Untold,
                (Some("0"), _) => Appends::Never,
                (Some(_), None) => Appends::Untold,
                (Some(_), Some("always")) => Appends::Always,
                (Some(_), Some(other)) => Appends::Later(other.to_owned()),
            },
            may_replay: user.map(may_do_everything),
            pauses_syncing: setting("no-appendfsync-on-rewrite") == Some("yes"),
            least_replicas: setting("min-replicas-to-write")
                .or_else(|| setting("min-slaves-to-write"))
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
            is_log_failing: info.get("aof_last_write_status").is_some_and(|status| *status != "ok"),
            is_loading: text("loading") == "1",
            evicts: info
                .get("maxmemory_policy")
                .filter(|policy| **policy != "noeviction" && max_bytes > 0)
                .map(|policy| (*policy).to_owned()),
            used_bytes: number("used_memory"),
            max_bytes,
        }
    }

    /// Returns why a journal on it may lose what was acknowledged (P3), each with what to do; nothing where it does not.
    /// `replicas`: how many of them have each event before it is acknowledged.
    #[must_use]
    pub fn losses(&self, replicas: u64) -> Vec<String> {
        let mut losses = Vec::new();
        match &self.appends {
            Appends::Always => {}
            Appends::Never => losses.push("it keeps no log (appendonly no): set `appendonly yes` and `appendfsync always`".to_owned()),
            Appends::Later(when) => {
                losses.push(format!("it acknowledges what is not on its disk yet (appendfsync {when}): set `appendfsync always`"));
            }
            Appends::Untold => losses.push(
                "it does not tell whether it has a log that is synced (CONFIG GET appendfsync): nobody can say that it has".to_owned(),
            ),
        }
        if self.pauses_syncing && self.appends == Appends::Always {
            losses.push("it syncs nothing while it writes its log anew: set `no-appendfsync-on-rewrite no`".to_owned());
        }
        if self.least_replicas < replicas {
            losses.push(format!("cut off from its replicas it would go on taking writes: set `min-replicas-to-write {replicas}`"));
        }
        // What a script wrote is replayed as that user, and left out where it may not write so (redis/redis#14541).
        match self.may_replay {
            _ if matches!(self.appends, Appends::Never | Appends::Untold) => {}
            Some(true) => {}
            Some(false) => losses.push(
                "its user `default` may not do everything, and where it may not, older servers leave out of their log what scripts wrote when \
                 they are started again: keep that user from being used by `user default off nopass ~* &* +@all`, or by a password"
                    .to_owned(),
            ),
            None => losses.push(
                "it does not tell what its user `default` may do (ACL GETUSER default), as which it reads its log: allow `+acl|getuser`"
                    .to_owned(),
            ),
        }
        if self.is_log_failing {
            losses.push("its log can't be written (aof_last_write_status): look at its disk".to_owned());
        }
        if let Some(policy) = &self.evicts {
            losses.push(format!("it throws away keys when it is full (maxmemory-policy {policy}): set `maxmemory-policy noeviction`"));
        }
        if self.replicas > 0 && replicas == 0 {
            losses.push(format!(
                "{} replicas follow it, and one that takes its place may lack what was acknowledged: set `replicas` of the journal to how \
                 many of them must have it first",
                self.replicas
            ));
        }
        if self.replicas < replicas {
            losses
                .push(format!("{} replicas follow it, {replicas} must have each event: nothing is accepted until they do", self.replicas));
        }
        losses
    }
}

/// Reads what ACL GETUSER says: before Redis 7 keys are a list, and what is allowed as a whole is a flag.
fn may_do_everything(user: &BTreeMap<String, Value>) -> bool {
    let words = |name: &str| match user.get(name) {
        Some(Value::Array(list) | Value::Set(list)) => list.iter().map(text).collect(),
        Some(value) => text(value).split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        None => Vec::new(),
    };
    let has = |name: &str, word: &str| words(name).iter().any(|known| known == word);
    let commands = words("commands");
    let all_commands = commands.first().is_some_and(|first| first == "+@all") && !commands.iter().any(|word| word.starts_with('-'));
    let all_keys = has("flags", "allkeys") || has("keys", "~*") || has("keys", "*");
    (has("flags", "allcommands") || all_commands) && all_keys
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(commands: &str, keys: &str) -> BTreeMap<String, Value> {
        let field = |name: &str, value: &str| (name.to_owned(), Value::BulkString(value.as_bytes().to_vec()));
        BTreeMap::from([field("commands", commands), field("keys", keys)])
    }

    fn inspect(info: &str, settings: &[(&str, &str)]) -> Inspection {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Inspection::read(&info.replace(' ', "\r\n"), &settings, Some(&user("+@all", "~*")))
    }

    #[test]
    fn a_log_is_replayed_whole_only_as_a_user_who_may_do_everything() {
        for (commands, keys, may) in
            [("+@all", "~*", true), ("-@all", "", false), ("+@all -flushall", "~*", false), ("+@all", "~a*", false)]
        {
            assert_eq!(may_do_everything(&user(commands, keys)), may, "{commands} {keys}");
        }
        let list = |words: &[&str]| Value::Array(words.iter().map(|word| Value::SimpleString((*word).to_owned())).collect());
        let old = BTreeMap::from([("flags".to_owned(), list(&["on", "allkeys", "allcommands"])), ("keys".to_owned(), list(&["*"]))]);
        assert!(may_do_everything(&old));
        let sound = inspect(SOUND, &[("appendfsync", "always")]);
        for (told, said) in [(Some(false), "user default off nopass"), (None, "+acl|getuser")] {
            let losses = Inspection { may_replay: told, ..sound.clone() }.losses(0);
            assert!(losses.len() == 1 && losses[0].contains(said), "{losses:?}");
        }
    }

    const SOUND: &str = "redis_version:7.0.15 run_id:ab role:master connected_slaves:0 aof_enabled:1 aof_last_write_status:ok loading:0 maxmemory:0 maxmemory_policy:allkeys-lru";

    #[test]
    fn a_redis_that_syncs_each_write_and_throws_nothing_away_loses_nothing() {
        let sound = inspect(SOUND, &[("appendfsync", "always")]);
        assert_eq!((sound.version.as_str(), sound.run.as_str(), sound.is_master), ("7.0.15", "ab", true));
        assert_eq!(sound.losses(0), [""; 0], "what would be thrown away does not matter where there is no bound");
    }

    #[test]
    fn every_way_to_lose_what_was_acknowledged_is_named() {
        for (from, to, settings, said) in [
            ("aof_enabled:1", "aof_enabled:0", vec![("appendfsync", "always")], "appendonly yes"),
            ("", "", vec![("appendfsync", "everysec")], "appendfsync everysec"),
            ("", "", vec![], "does not tell"),
            ("", "", vec![("appendfsync", "always"), ("no-appendfsync-on-rewrite", "yes")], "no-appendfsync-on-rewrite no"),
            ("status:ok", "status:err", vec![("appendfsync", "always")], "disk"),
            ("maxmemory:0", "maxmemory:1048576", vec![("appendfsync", "always")], "noeviction"),
            ("slaves:0", "slaves:2", vec![("appendfsync", "always")], "2 replicas"),
        ] {
            let losses = inspect(&SOUND.replace(from, to), &settings).losses(0);
            assert!(losses.len() == 1 && losses[0].contains(said), "{losses:?}");
        }
        let one_replica = inspect(&SOUND.replace("slaves:0", "slaves:1"), &[("appendfsync", "always"), ("min-replicas-to-write", "1")]);
        assert!(one_replica.losses(1).is_empty());
        assert!(one_replica.losses(2)[0].contains("min-replicas-to-write 2") && one_replica.losses(2)[1].contains("2 must have"));
    }

    #[test]
    fn a_valkey_is_known_by_its_own_version() {
        let valkey = inspect("redis_version:7.2.4 valkey_version:8.1.0", &[]);
        assert_eq!((valkey.version.as_str(), valkey.is_valkey), ("8.1.0", true));
    }
}
