//! What a rank and its supervisor say to each other: one JSON object on each line.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stream::Stream;

/// Counts up whenever what travels between ranks or to the supervisor changes.
pub(crate) const PROTOCOL: u64 = 1;
/// The version of the program, which has to be the same everywhere.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Longer lines are not ours.
const LONGEST: usize = 1 << 20;

/// The first line of a rank to its supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub protocol: u64,
    pub version: String,
    /// The secret of this start of the job.
    pub job: String,
    pub rank: usize,
    /// How many ranks it was told that there are.
    pub ranks: usize,
    pub host: String,
    pub pid: u32,
    pub device: String,
    /// Where it takes connections of other ranks, if they come by sockets.
    pub listens: Option<String>,
}

impl Hello {
    /// Understands the first line of any version, or says which one is spoken.
    pub fn understand(line: &Value) -> Result<Hello, String> {
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or("unknown");
        let number = |key: &str| line.get(key).and_then(Value::as_u64);
        let (protocol, version) = (number("protocol"), text("version"));
        if protocol != Some(PROTOCOL) || version != VERSION {
            let rank = number("rank").map_or("a rank".to_owned(), |rank| format!("rank {rank}"));
            let protocol = protocol.map_or("unknown".to_owned(), |protocol| protocol.to_string());
            return Err(format!(
                "{rank} on {} is ferrata {version} with protocol {protocol}, the launcher \
                 {VERSION} with protocol {PROTOCOL}; install one version on all hosts",
                text("host")
            ));
        }
        Hello::deserialize(line).map_err(|error| format!("a rank's first line is wrong: {error}"))
    }
}

/// A rank as the others see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub host: String,
    pub listens: Option<String>,
}

/// From the supervisor to a rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// All ranks are there; by rank.
    Begin(Vec<Member>),
    /// This rank cannot take part.
    Refuse(String),
    /// Save and end.
    Stop,
}

/// The first line of a rank to another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub job: String,
    pub rank: usize,
}

/// Where a rank is, several times a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// The step it is in, unless it does something else.
    pub step: Option<u64>,
    /// What it does instead: compiling, a checkpoint, an evaluation.
    pub other: Option<String>,
    /// The collective that it entered last, and its scope.
    pub collective: Option<String>,
    pub scope: String,
    /// How many collectives it has entered.
    pub entered: u64,
    /// Whether it is in one.
    pub inside: bool,
    /// Seconds that it was not in one.
    pub busy: f64,
    /// Why a collective failed; another rank is to blame, most often.
    pub failed: Option<String>,
    /// The program has done what it was started for.
    pub done: bool,
}

/// Sends one line.
pub(crate) fn send(mut stream: &Stream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Takes one line, and no byte more; none at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(mut stream: &Stream) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte[0] == b'\n' => return Ok(Some(serde_json::from_slice(&line)?)),
            Ok(_) if line.len() < LONGEST => line.push(byte[0]),
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
