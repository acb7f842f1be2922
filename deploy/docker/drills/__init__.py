"""Drills against the deployment of compose.yaml, in the order in which one meets them: `settings` says how large and how fast,
`compose` brings the containers up and breaks them, `world` is the deployment with what was promised in it (`truth`). `stage` sets
a drill's scene: `clients` read by `line` and `resolver`, `purger` and `publisher` change things, `prober` asks the DNS. `record` keeps
what they saw, `audit` judges it, `table` shows it. The drills themselves are in `nodes`, `engines`, `network`, `disks`, `clock` and
`backup`; `selftest` lies to the checker."""
