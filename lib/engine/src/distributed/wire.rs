//! Control protocol between ranks, without tensors, which go by MLX's collectives: JSON messages over TCP, one per line.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::ops::Range;

use mlxk_models::checkpoint::part::Part;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::forward::Pass;

/// Maximum length of a message, in bytes; a pass has some thousand tokens at most, each with a position.
const LONGEST: u64 = 4 << 20;

/// Command of rank 0 to another rank.
#[derive(Debug, Serialize, Deserialize)]
pub enum RankCommand {
    /// Load this part and join the group of MLX.
    Start(Part),
    /// The rank cannot take part, for this reason.
    Refused(String),
    /// Run the next tokens of sequences.
    Pass(Pass),
    /// Set the blocks of a sequence, by positions, whose tokens attend to each other.
    Blocks { sequence: u64, blocks: Vec<Range<i32>> },
    /// Copy the cache of sequence `from` to the new sequence `to`.
    Copy { from: u64, to: u64 },
    /// Drop the last `tokens` tokens from the cache of a sequence; the reply is [`RankReply::Forgot`].
    Forget { sequence: u64, tokens: usize },
    /// Drop the cache of a sequence.
    Drop { sequence: u64 },
    /// End the work of the rank.
    End,
}

/// Reply of another rank to rank 0.
#[derive(Debug, Serialize, Deserialize)]
pub enum RankReply {
    /// The rank introduces itself: its first message.
    Hello(Hello),
    /// The part is loaded; `forgets` is true if its caches can drop their last tokens, `blocks` if the
    /// tokens of a block attend to each other in one of its layers.
    Ready { forgets: bool, blocks: bool },
    /// True if the cache of a sequence dropped the tokens of [`RankCommand::Forget`].
    Forgot(bool),
    /// The rank ends because of this error.
    Failed(String),
}

/// Introduction of a rank.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the program, which must be that of rank 0.
    pub version: String,
    /// Number of the rank, from 1.
    pub rank: usize,
    /// Digest of the model's config.json and of the names and shapes of its tensors.
    pub model: String,
    /// Memory limit for the part of the rank, in bytes.
    pub memory: u64,
    /// True if the rank computes on a CPU.
    pub on_cpu: bool,
}

/// Writes a message as a line of JSON.
///
/// # Errors
/// If the connection has ended.
pub fn send_message(mut to: &TcpStream, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reader of the messages of a connection.
pub struct MessageReader(BufReader<TcpStream>);

impl MessageReader {
    /// A reader of the messages that come through `stream`.
    pub fn new(stream: TcpStream) -> MessageReader {
        MessageReader(BufReader::new(stream))
    }

    /// Waits for the next message; `None` if the other side has closed the connection.
    ///
    /// # Errors
    /// If the connection fails, or the message is too long or not JSON of type `M`.
    pub fn read<M: DeserializeOwned>(&mut self) -> Result<Option<M>> {
        let mut line = Vec::new();
        (&mut self.0).take(LONGEST).read_until(b'\n', &mut line)?;
        match line.last() {
            Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
            Some(_) if line.len() as u64 == LONGEST => Err(Error::from(ErrorKind::InvalidData)),
            _ => Ok(None),
        }
    }
}
