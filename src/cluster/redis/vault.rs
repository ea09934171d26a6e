//! The vault: a key for each session.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};

use super::link::{Asked, Link, Wire, sound};
use crate::cluster::transport::{Failure, Sessions, Vault, Wanted};

impl Vault for Link {
    fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn ask(&mut self, wanted: &[Wanted]) -> Result<(), Failure> {
        let (commands, until) = (self.questions(wanted), self.until());
        let answers = match &mut self.wire {
            Wire::Server(connection) => {
                connection.begin(&commands, until)?;
                None
            }
            Wire::Cluster(cluster) => Some(cluster.all(&commands, until)?),
        };
        self.asked.push_back(Asked { count: commands.len(), answers });
        Ok(())
    }

    fn fetch(&mut self, until: Duration) -> Result<Option<Sessions>, Failure> {
        let Some(Asked { count, answers }) = self.asked.front_mut() else { return Ok(None) };
        let fetched = match (answers.take(), &mut self.wire) {
            (None, Wire::Server(connection)) => connection.fetch(*count, until)?,
            (answers, _) => answers,
        };
        let Some(answers) = fetched else { return Ok(None) };
        self.asked.pop_front();
        sealed(answers).map(Some)
    }

    fn sessions(&mut self, wanted: &[Wanted]) -> Result<Sessions, Failure> {
        let commands = self.questions(wanted);
        sealed(self.exchange(&commands, self.until())?)
    }

    fn is_answered_alone(&self) -> bool {
        matches!(self.wire, Wire::Server(_))
    }
}

impl Link {
    fn questions(&self, wanted: &[Wanted]) -> Vec<Cmd> {
        let question = |(key, take): &Wanted| {
            let mut get = redis::cmd(if *take { "GETDEL" } else { "GET" });
            get.arg(self.names.session(key));
            get
        };
        wanted.iter().map(question).collect()
    }
}

/// What sessions are in these answers.
fn sealed(answers: Vec<Value>) -> Result<Sessions, Failure> {
    let sealed = |answer| match sound(answer) {
        Err(Failure::Strange(_)) => Ok(None),
        answer => Option::from_redis_value(answer?).map_err(|_| Failure::garbage("GET")),
    };
    answers.into_iter().map(sealed).collect()
}
