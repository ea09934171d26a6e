//! The tool as it is run, on the memory of servers that this process plays.

mod agent;
mod clocks;
mod commands;
mod reach;
mod secrets;
mod support;
