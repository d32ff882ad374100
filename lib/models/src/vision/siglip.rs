//! Vision towers of SigLIP (arXiv 2303.15343) and CLIP (arXiv 2103.00020): learned positions, and in
//! CLIP a class token and a norm before the layers.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{broadcast_to, concatenate};
use mlxk_core::Result as Loaded;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::Mask;
use serde::Deserialize;
use serde_json::Value;

use super::patch_embed::{PatchArch, PatchEmbed, PatchOrder};
use super::vit::{Patches, Sizes, Vit, VitArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::nn::linear::Embedding;
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Largest side of a patch, and number of channels, of any tower.
const MAX_SIDE: usize = 1024;

/// Epsilon of the norm after the layers, whatever config.json says of the others.
const POST_EPS: f32 = 1e-5;

/// Fields of `vision_config`.
#[derive(Deserialize)]
pub struct Config {
    /// Elements of a hidden vector.
    pub hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Epsilon of the norms of the layers.
    pub layer_norm_eps: f32,
    hidden_act: String,
}

/// Member of the family.
pub struct Member {
    /// True for CLIP.
    pub clip: bool,
    /// Hidden states that the tower gives: those before so many of the last layers, or, if `None`,
    /// those after all layers and the norm after them.
    pub skipped: Option<usize>,
}

impl Config {
    /// Reads `vision_config` of `config`, with `defaults` of the model that has the tower.
    ///
    /// # Errors
    /// If a field is invalid.
    pub fn read(config: &Value, defaults: Value) -> Loaded<Config> {
        let stated = config
            .get("vision_config")
            .cloned()
            .unwrap_or_else(|| Value::Object(Default::default()));
        let c: Config = fields(&given(&stated, defaults))?;
        most_layers(c.num_hidden_layers)?;
        positive(&[
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("num_channels", c.num_channels),
            ("image_size", c.image_size),
            ("patch_size", c.patch_size),
        ])?;
        let sides = [("num_channels", c.num_channels), ("patch_size", c.patch_size)];
        if let Some((name, side)) = sides.iter().find(|(_, side)| *side > MAX_SIDE) {
            return Err(invalid(format!("`{name}` cannot be {side}")));
        }
        if !c.hidden_size.is_multiple_of(c.num_attention_heads) || c.side() == 0 {
            let message = format!(
                "`vision_config` cannot have {} heads and patches of {} pixels",
                c.num_attention_heads, c.patch_size
            );
            return Err(invalid(message));
        }
        Ok(c)
    }

    /// Patches of a side of an image.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.num_hidden_layers
    }

    fn activation(&self) -> Loaded<Activation> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Activation::GeluTanh),
            "quick_gelu" => Ok(Activation::QuickGelu),
            other => Err(unknown(format!("activation `{other}` cannot run yet"))),
        }
    }
}

/// Tower of SigLIP or CLIP.
pub struct Siglip {
    patch_embedding: PatchEmbed,
    /// Class token, which stands before the patches of each image.
    class_embedding: Option<Array>,
    position_embedding: Embedding,
    /// Patches of a side of an image that the positions were learned with.
    side: i32,
    pre_norm: Option<Norm>,
    vit: Vit,
    post_norm: Option<Norm>,
}

impl Siglip {
    /// Loads the tower at `w`.
    ///
    /// # Errors
    /// If tensors are missing, or of another shape or type.
    pub fn load(w: &mut Cursor, c: &Config, member: &Member) -> Loaded<Siglip> {
        w.rename(&[
            ("blocks", "encoder.layers"),
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("attn.o_proj", "self_attn.out_proj"),
            ("attn", "self_attn"),
            ("up_proj", "fc1"),
            ("down_proj", "fc2"),
        ]);
        // What only contrastive training uses, and positions that are but counted.
        w.discard(|name| name.ends_with("position_ids") || name.contains("vision_model.head."));
        let hidden = c.hidden_size;
        let layers = c.num_hidden_layers - member.skipped.unwrap_or(0).min(c.num_hidden_layers);
        for layer in layers..c.num_hidden_layers {
            let name = format!("encoder.layers.{layer}.");
            w.discard(|other| other.contains(&name));
        }
        let norm = NormArch { kind: NormKind::Layer, eps: c.layer_norm_eps };
        let mlp = MlpArch {
            inner: c.intermediate_size,
            gated: false,
            fused: false,
            activation: c.activation()?,
        };
        let patch = PatchArch {
            hidden,
            channels: c.num_channels,
            kernel: [1, c.patch_size, c.patch_size],
            order: PatchOrder::ChannelsLast,
        };
        let post = NormArch { eps: POST_EPS, ..norm };
        let pre_norm = member.clip.then(|| norm.load(w, "pre_layrnorm", hidden)).transpose()?;
        let post_norm = post.load(w, "post_layernorm", hidden)?;
        let vit = VitArch::new(&Sizes { hidden, heads: c.num_attention_heads, layers }, norm, mlp);
        let vit = Vit::load(w, &vit)?;
        let mut at = w.at("embeddings");
        let class = member.clip.then(|| at.floats("class_embedding", &[hidden])).transpose()?;
        let positions = c.side() * c.side() + usize::from(member.clip);
        Ok(Siglip {
            patch_embedding: PatchEmbed::load(&mut at, "patch_embedding", &patch)?,
            class_embedding: class,
            position_embedding: Embedding::load(&mut at, "position_embedding", positions, hidden)?,
            side: c.side() as i32,
            pre_norm,
            vit,
            post_norm: member.skipped.is_none().then_some(post_norm),
        })
    }

    /// Hidden states [images, tokens, hidden] of patches [rows, columns] of `grid`: images, rows and
    /// columns. The tokens of an image are its class token, if the tower has one, and its patches.
    /// Images with fewer patches than the positions were learned with have those at their fractions
    /// of the height and the width.
    pub fn forward(&self, pixels: &Array, [images, rows, columns]: [i32; 3]) -> Result<Array> {
        let side = self.side;
        if rows > side || columns > side || pixels.dim(0) != images * rows * columns {
            let message = format!("{rows} x {columns} patches, for a tower of {side} x {side}");
            return Err(message.as_str().into());
        }
        let mut x = self.patch_embedding.forward(pixels)?.reshape(&[images, rows * columns, -1])?;
        let class = i32::from(self.class_embedding.is_some());
        if let Some(token) = &self.class_embedding {
            let token = broadcast_to(token, &[images, 1, x.dim(2)])?;
            x = concatenate(&[token, x], 1)?;
        }
        let place =
            |row: i32, column: i32| class + row * side / rows * side + column * side / columns;
        let patches = (0..rows).flat_map(|row| (0..columns).map(move |column| place(row, column)));
        let places: Vec<i32> = (0..class).chain(patches).collect();
        let tokens = places.len() as i32;
        let positions =
            self.position_embedding.forward(&Array::from_slice(&places, &[1, tokens]))?;
        let x = x.add(positions)?.reshape(&[1, images * tokens, -1])?;
        let x = self.pre_norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))?;
        let blocks = vec![tokens as usize; images as usize];
        let patches =
            Patches { positions: Vec::new(), windows: Mask::All, pictures: Mask::packed(&blocks) };
        let h = self.vit.forward(x, &patches)?;
        let h = self.post_norm.as_ref().map_or(Ok(h.clone()), |norm| norm.forward(&h))?;
        h.reshape(&[images, tokens, -1])
    }
}
