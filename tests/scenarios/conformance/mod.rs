//! What a cache must get right about HTTP, told as cases over real sockets: in each step somebody asks the edge, an
//! upstream has its answer ready in case it is asked, and both sides say what must have happened.
//!
//! A case names its rule of http.md and the section of the RFC that it comes from. Each file has one town; its cases
//! are told one after the other, each under a path of its own, and all that fail are listed together.

mod case;
mod script;
mod scene;
mod stage;

mod freshness;
mod storing;
mod conditions;
mod invalidation;
mod ranges;
mod stale;
mod directives;
mod passing;
mod policy;
