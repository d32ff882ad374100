//! Parakeet: a Fast Conformer encoder (arXiv 2305.05084) with the decoder of a transducer or of CTC,
//! in the names of NeMo and with the layouts of MLX.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Architecture;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use serde::Deserialize;
use serde_json::Value;

use super::nemo::Nemo;
use super::{Ctc, Speech, Transducer};
use crate::audio::conformer::Conformer;
use crate::audio::strided_conv::as_matrix;
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::{Embedding, Linear};
use crate::nn::lstm::{Lstm, LstmState};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::speech(Architecture::Parakeet, load)];

/// Loader of the networks of a class.
type Load = fn(&Value, Cursor) -> mlxk_core::Result<Speech>;

/// Classes of NeMo, each with the loader of its networks.
const CLASSES: [(&str, Load); 3] = [
    ("EncDecRNNTBPEModel", load_transducer),
    ("EncDecHybridRNNTCTCBPEModel", load_transducer),
    ("EncDecCTCModelBPE", load_ctc),
];

/// Loads the network of the class that `target` names.
fn load(config: &Value, w: Cursor) -> mlxk_core::Result<Speech> {
    let target = config.get("target").and_then(Value::as_str).unwrap_or_default();
    let class = target.rsplit('.').next().unwrap_or_default();
    match CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, load)) => load(config, w),
        None => Err(unknown(format!("speech models of class `{class}` cannot run"))),
    }
}

fn load_encoder(config: &Value, w: &mut Cursor) -> mlxk_core::Result<(Conformer, Nemo)> {
    let encoder = Conformer::load(part(config, "encoder"), &mut w.at("encoder"))?;
    let nemo = Nemo::read(config, encoder.stride, encoder.bands)?;
    Ok((encoder, nemo))
}

fn part<'a>(config: &'a Value, name: &str) -> &'a Value {
    config.get(name).unwrap_or(&Value::Null)
}

/// Network with a CTC decoder.
struct Classifier {
    nemo: Nemo,
    encoder: Conformer,
    /// Logits of the tokens and the blank.
    head: Linear,
}

fn load_ctc(config: &Value, mut w: Cursor) -> mlxk_core::Result<Speech> {
    let (encoder, nemo) = load_encoder(config, &mut w)?;
    let (outs, ins) = (nemo.vocabulary.len() + 1, encoder.hidden);
    let mut layers = w.at("decoder.decoder_layers");
    as_matrix(&mut layers, "0", outs, ins)?;
    let head = Linear::load(&mut layers, "0", outs, ins)?;
    Ok(Speech::Ctc(Box::new(Classifier { nemo, encoder, head })))
}

impl Ctc for Classifier {
    fn nemo(&self) -> &Nemo {
        &self.nemo
    }

    fn encode(&self, mel: &Array) -> Result<Array> {
        self.encoder.forward(mel)
    }

    fn head(&self, states: &Array) -> Result<Array> {
        self.head.forward(states)
    }
}

/// Network with a predictor and a joint network.
struct ParakeetTransducer {
    nemo: Nemo,
    encoder: Conformer,
    embed: Embedding,
    lstm: Lstm,
    /// Projection of the encoder's rows.
    enc: Linear,
    /// Projection of predictions.
    pred: Linear,
    activation: Activation,
    /// Logits of tokens, blank and durations.
    head: Linear,
    durations: Vec<usize>,
    most_symbols: usize,
    ops: &'static dyn Ops,
}

/// Parts of the configuration that a transducer adds; fields are named as in the file.
#[derive(Deserialize)]
struct Config {
    decoder: Decoder,
    joint: Joint,
    decoding: Option<Decoding>,
    model_defaults: Option<Defaults>,
}

#[derive(Deserialize)]
struct Decoder {
    #[serde(default)]
    blank_as_pad: bool,
    prednet: Prednet,
}

#[derive(Deserialize)]
struct Prednet {
    pred_hidden: usize,
    pred_rnn_layers: usize,
}

#[derive(Deserialize)]
struct Joint {
    jointnet: Jointnet,
    #[serde(default)]
    num_extra_outputs: usize,
}

#[derive(Deserialize)]
struct Jointnet {
    joint_hidden: usize,
    activation: String,
}

#[derive(Deserialize)]
struct Decoding {
    durations: Option<Vec<usize>>,
    greedy: Option<Greedy>,
}

#[derive(Deserialize)]
struct Greedy {
    max_symbols: Option<usize>,
}

#[derive(Deserialize)]
struct Defaults {
    tdt_durations: Option<Vec<usize>>,
}

impl Config {
    fn read(config: &Value) -> mlxk_core::Result<Config> {
        let c: Config = fields(config)?;
        let Prednet { pred_hidden, pred_rnn_layers } = c.decoder.prednet;
        positive(&[
            ("decoder.prednet.pred_hidden", pred_hidden),
            ("decoder.prednet.pred_rnn_layers", pred_rnn_layers),
            ("joint.jointnet.joint_hidden", c.joint.jointnet.joint_hidden),
        ])?;
        most_layers(pred_rnn_layers)?;
        Ok(c)
    }

    /// Durations that the joint network decides among. Errors if it has another number of them.
    fn durations(&self) -> mlxk_core::Result<Vec<usize>> {
        let stated = self.decoding.as_ref().and_then(|decoding| decoding.durations.clone());
        let default = || self.model_defaults.as_ref()?.tdt_durations.clone();
        let durations = stated.filter(|stated| !stated.is_empty()).or_else(default);
        let durations = durations.unwrap_or_default();
        let count = self.joint.num_extra_outputs;
        if durations.len() != count {
            let found = durations.len();
            return Err(invalid(format!("{found} durations, and {count} `num_extra_outputs`")));
        }
        match durations.iter().find(|&&rows| rows > LONGEST) {
            Some(rows) => Err(invalid(format!("a duration cannot be {rows}"))),
            None => Ok(durations),
        }
    }

    /// Activation of the joint network.
    fn activation(&self) -> mlxk_core::Result<Activation> {
        match self.joint.jointnet.activation.to_lowercase().as_str() {
            "relu" => Ok(Activation::Relu),
            "sigmoid" => Ok(Activation::Sigmoid),
            "tanh" => Ok(Activation::Tanh),
            other => Err(unknown(format!("joint networks with `{other}` cannot run"))),
        }
    }

    fn most_symbols(&self) -> usize {
        let greedy = self.decoding.as_ref().and_then(|decoding| decoding.greedy.as_ref());
        greedy.and_then(|greedy| greedy.max_symbols).unwrap_or(SYMBOLS).max(1)
    }
}

/// Tokens of a row, if the configuration states no bound.
const SYMBOLS: usize = 10;
/// Bound of a duration, in rows.
const LONGEST: usize = 1000;

fn load_transducer(config: &Value, mut w: Cursor) -> mlxk_core::Result<Speech> {
    let (encoder, nemo) = load_encoder(config, &mut w)?;
    let c = Config::read(config)?;
    // The second decoder of a hybrid, which the transducer surpasses.
    w.discard(|name| name.starts_with("ctc_decoder."));
    let Prednet { pred_hidden, pred_rnn_layers } = c.decoder.prednet;
    let joint_hidden = c.joint.jointnet.joint_hidden;
    let tokens = nemo.vocabulary.len();
    let durations = c.durations()?;
    let mut prediction = w.at("decoder.prediction");
    let rows = tokens + usize::from(c.decoder.blank_as_pad);
    let embed = Embedding::load(&mut prediction, "embed", rows, pred_hidden)?;
    let lstm = Lstm::load(&mut prediction.at("dec_rnn.lstm"), pred_rnn_layers, pred_hidden)?;
    let mut joint = w.at("joint");
    let outs = tokens + 1 + durations.len();
    Ok(Speech::Transducer(Box::new(ParakeetTransducer {
        enc: Linear::load(&mut joint, "enc", joint_hidden, encoder.hidden)?,
        pred: Linear::load(&mut joint, "pred", joint_hidden, pred_hidden)?,
        head: Linear::load(&mut joint, "joint_net.2", outs, joint_hidden)?,
        activation: c.activation()?,
        most_symbols: c.most_symbols(),
        nemo,
        encoder,
        embed,
        lstm,
        durations,
        ops: w.ops(),
    })))
}

impl Transducer for ParakeetTransducer {
    fn nemo(&self) -> &Nemo {
        &self.nemo
    }

    fn durations(&self) -> &[usize] {
        &self.durations
    }

    fn most_symbols(&self) -> usize {
        self.most_symbols
    }

    fn encode(&self, mel: &Array) -> Result<Array> {
        self.encoder.forward(mel)
    }

    fn project(&self, states: &Array) -> Result<Array> {
        self.enc.forward(states)
    }

    fn predict(&self, token: Option<u32>, state: Option<&LstmState>) -> Result<(Array, LstmState)> {
        let x = token
            .map(|token| self.embed.forward(&Array::from_slice(&[token], &[1, 1])))
            .transpose()?;
        let (prediction, state) = self.lstm.forward(x.as_ref(), state)?;
        Ok((self.pred.forward(&prediction)?, state))
    }

    fn join(&self, row: &Array, prediction: &Array) -> Result<Array> {
        let sum = self.ops.add(row, prediction)?;
        self.head.forward(&self.ops.activate(&sum, self.activation)?)
    }
}
