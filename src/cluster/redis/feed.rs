//! The feed: a stream, and notices that there is something new in it.

use std::time::Duration;

use super::gap::{STANDING, Standing};
use super::link::{Link, Wire};
use super::news::{NEWEST, entry_id};
use crate::cluster::transport::{Cursor, Failure, Feed, News};

impl Feed for Link {
    fn listen(&mut self) -> Result<(), Failure> {
        let until = self.until();
        if let Wire::Server(connection) = &mut self.wire {
            self.is_told = connection.subscribe(&self.names.notices, until)?;
        }
        Ok(())
    }

    fn is_told(&self) -> bool {
        self.is_told
    }

    fn wait_for_notice(&mut self, longest: Duration) -> Result<bool, Failure> {
        match &mut self.wire {
            Wire::Server(connection) => connection.wait(longest),
            Wire::Cluster(_) => Ok(false),
        }
    }

    fn has_notice(&mut self) -> bool {
        match &mut self.wire {
            Wire::Server(connection) => connection.was_told(),
            Wire::Cluster(_) => false,
        }
    }

    fn news(&mut self, last: Cursor) -> Result<News, Failure> {
        let read =
            if self.caution.is_due() { self.read_little(last) } else { self.read_much(last) };
        self.caution.learn(&read);
        read
    }

    fn newest(&mut self) -> Result<Cursor, Failure> {
        let mut read = redis::cmd("EVAL");
        read.arg(NEWEST).arg(1).arg(&self.names.stream);
        let id: Option<String> = self.ask_for(&read, "EVAL", self.until())?;
        let newest = id.map_or(Some((0, 0)), |id| entry_id(&id));
        newest.ok_or_else(|| Failure::garbage("EVAL"))
    }

    fn lacks_some_after(&mut self, last: Cursor) -> Result<bool, Failure> {
        let mut ask = redis::cmd("EVAL");
        ask.arg(STANDING).arg(1).arg(&self.names.stream);
        let said: Option<(String, String, i64, i64)> = self.ask_for(&ask, "EVAL", self.until())?;
        let Some((first, newest, length, added)) = said else { return Ok(false) };
        let id = |text: &str| entry_id(text).ok_or_else(|| Failure::garbage("EVAL"));
        let standing = Standing {
            first: if first.is_empty() { None } else { Some(id(&first)?) },
            last: id(&newest)?,
            length,
            added: Some(added).filter(|added| *added >= 0),
        };
        Ok(standing.lacks_some_after(last))
    }
}
