//! What ranks tell each other besides tensors: messages of JSON, a line each, over TCP.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use mlxk_models::checkpoint::part::Part;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest message in bytes; a pass tells of a few thousand tokens at most.
const LONGEST: u64 = 1 << 20;

/// What rank 0 tells the others.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// To load this part and join the group.
    Start(Part),
    /// That they do not fit together, and why.
    Refused(String),
    /// That texts advance: each by so many rows of those of `ids`, in turn. New numbers are new
    /// texts.
    Pass { texts: Vec<(u64, usize)>, ids: Vec<u32> },
    /// That a text begins as another one is.
    Copy { from: u64, to: u64 },
    /// That a text loses its last tokens; the answer says whether it could.
    Forget { text: u64, tokens: usize },
    /// That a text is over.
    Drop { text: u64 },
    /// That all is over.
    End,
}

/// What they tell rank 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Who they are.
    Hello(Hello),
    /// That the part is loaded, and whether its texts can lose tokens.
    Ready { forgets: bool },
    /// Whether a text could lose them.
    Forgot(bool),
    /// That all is over, and why.
    Failed(String),
}

/// Who a rank is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the program.
    pub version: String,
    /// Its number.
    pub rank: usize,
    /// A digest of what its model is like.
    pub model: String,
    /// Bytes that its part may take.
    pub memory: u64,
    /// Whether it computes on a CPU.
    pub on_cpu: bool,
}

/// Writes a message.
pub fn say(mut to: &TcpStream, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Where messages come from.
pub struct Ear(BufReader<TcpStream>);

impl Ear {
    /// Those that come through `stream`.
    pub fn new(stream: TcpStream) -> Ear {
        Ear(BufReader::new(stream))
    }

    /// The next one, whenever it comes; none if the other side has gone.
    pub fn hear<M: DeserializeOwned>(&mut self) -> Result<Option<M>> {
        let mut line = Vec::new();
        (&mut self.0).take(LONGEST).read_until(b'\n', &mut line)?;
        match line.last() {
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) if line.len() as u64 == LONGEST => Err(Error::from(ErrorKind::InvalidData)),
            _ => Ok(None),
        }
    }
}
