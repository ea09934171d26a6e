//! The modules of `examples/nginx` in Debian's nginx: what its servers hand out resumes in every
//! worker, after a reload, a restart and a binary upgrade, and nowhere that it should not.
//!
//! The modules are those that `make nginx-module` built beside the examples.

mod changes;
mod dry_runs;
mod instances;
mod isolation;
mod mistakes;
mod nginx;
mod resumption;
mod settings;
mod status;
