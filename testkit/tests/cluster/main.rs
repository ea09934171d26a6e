//! Nodes that share nothing but a Redis: sessions resume on all of them, whatever happens to it.
//!
//! | module | what it is about |
//! |---|---|
//! | [`resumption`] | every kind of session, on another node, at once or after the replication delay |
//! | [`rotation`] | keys that change under load, nodes that join |
//! | [`single_use`] | a ticket that resumes once in the whole cluster |
//! | [`processes`], [`forks`], [`exits`] | connections and agents, children, ends |
//! | [`faults`] | the table of faults |
//! | [`crowd`] | clients who have to be looked up, and those who pass by |
//! | [`invented`] | session ids that nobody was given |
//! | [`policies`] | who gets in where |
//! | [`secrecy`] | what Redis and the network get to see |
//! | [`nodes`] | the nodes themselves |

mod crowd;
mod exits;
mod faults;
mod forks;
mod invented;
mod nodes;
mod policies;
mod processes;
mod resumption;
mod rotation;
mod secrecy;
mod single_use;
