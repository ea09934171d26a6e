//! What goes wrong, and when it is put right.

use super::Millis;
use super::random::Chance;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Some nodes cannot reach Redis: so many per mille of all, so long.
    Partition { share: u64, lasts: Millis },
    /// Redis has lost everything.
    Emptied,
    /// Redis is as it was at its last dump.
    Restored,
    /// Some nodes start anew, with nothing, after being away for a while.
    Restart { share: u64, away: Millis },
    /// An administrator revokes the key that encrypts, or all keys.
    Revocation { all: bool },
    /// The node that makes the keys dies.
    MakerDies { away: Millis },
}

impl Fault {
    /// One of all; a period is `rotate` long.
    pub(crate) fn any(chance: &mut Chance, rotate: Millis) -> Fault {
        match chance.below(12) {
            0..=2 => {
                Fault::Partition { share: chance.between(50, 600), lasts: some(chance, rotate) }
            }
            3 => Fault::Partition { share: 1000, lasts: chance.between(1000, rotate * 2) },
            4 => Fault::Emptied,
            5 => Fault::Restored,
            6..=7 => {
                Fault::Restart { share: chance.between(20, 500), away: chance.between(50, 60_000) }
            }
            8..=9 => Fault::Revocation { all: chance.below(3) == 0 },
            _ => Fault::MakerDies { away: chance.between(50, rotate) },
        }
    }

    /// Whether it is not to happen while few nodes can make up for it: the model's documentation says why.
    pub(crate) fn loses_contents(self) -> bool {
        matches!(self, Fault::Emptied | Fault::Restored)
    }
}

/// Mostly short, sometimes for several periods.
fn some(chance: &mut Chance, rotate: Millis) -> Millis {
    match chance.below(3) {
        0 => chance.between(1000, 60_000),
        1 => chance.between(60_000, rotate * 2),
        _ => chance.between(rotate * 2, rotate * 7),
    }
}
