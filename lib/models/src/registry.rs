//! Registry of the architectures that can run: a row for each, listed by family.

use mlxk_core::Architecture;

use crate::spec::Spec;
use crate::vision;
use crate::{encoder, speech, text};

const FAMILIES: &[&[Spec]] = &[
    encoder::bert::SPECS,
    encoder::distilbert::SPECS,
    encoder::gte::SPECS,
    encoder::jina::SPECS,
    encoder::modernbert::SPECS,
    encoder::mpnet::SPECS,
    encoder::nomic_bert::SPECS,
    encoder::roberta::SPECS,
    encoder::static_embedding::SPECS,
    speech::moonshine::SPECS,
    speech::parakeet::SPECS,
    speech::qwen3_asr::SPECS,
    speech::whisper::SPECS,
    text::afmoe::SPECS,
    text::bailing::SPECS,
    text::bitnet::SPECS,
    text::cohere::SPECS,
    text::deepseek::SPECS,
    text::deepseek_v41::SPECS,
    text::ernie::SPECS,
    text::exaone::SPECS,
    text::falcon_h::SPECS,
    text::gemma::SPECS,
    text::gemma3n::SPECS,
    text::gemma4::SPECS,
    text::glm::SPECS,
    text::gpt::SPECS,
    text::gpt_oss::SPECS,
    text::granite::SPECS,
    text::granite_hybrid::SPECS,
    text::hunyuan::SPECS,
    text::internlm::SPECS,
    text::jamba::SPECS,
    text::kimi::SPECS,
    text::laguna::SPECS,
    text::lfm::SPECS,
    text::llama::SPECS,
    text::llama4::SPECS,
    text::mamba::SPECS,
    text::mimo::SPECS,
    text::mistral::SPECS,
    text::mixtral::SPECS,
    text::multimodal::SPECS,
    text::nanochat::SPECS,
    text::nemotron_h::SPECS,
    text::olmo::SPECS,
    text::phi::SPECS,
    text::qwen::SPECS,
    text::qwen_next::SPECS,
    text::smollm::SPECS,
];

/// Vision towers, listed by family.
const TOWERS: &[&[(Architecture, vision::Load)]] = &[
    vision::gemma3::TOWERS,
    vision::gemma4::TOWERS,
    vision::idefics3::TOWERS,
    vision::internvl::TOWERS,
    vision::llava::TOWERS,
    vision::pixtral::TOWERS,
    vision::qwen_vl::TOWERS,
];

/// Loader of the vision tower that models of `architecture` have, if they have one that can run.
pub fn tower(architecture: Architecture) -> Option<vision::Load> {
    let mut rows = TOWERS.iter().copied().flatten();
    rows.find(|(own, _)| *own == architecture).map(|(_, load)| *load)
}

/// The row of `architecture`.
pub fn spec(architecture: Architecture) -> &'static Spec {
    ROWS[architecture as usize]
}

const COUNT: usize = Architecture::ALL.len();

/// Rows by architecture. The crate compiles only if each architecture has exactly one.
static ROWS: [&Spec; COUNT] = rows();

const fn rows() -> [&'static Spec; COUNT] {
    let mut found: [Option<&'static Spec>; COUNT] = [None; COUNT];
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let spec = &FAMILIES[family][row];
            let place = &mut found[spec.architecture as usize];
            assert!(place.is_none(), "an architecture has two rows");
            *place = Some(spec);
            row += 1;
        }
        family += 1;
    }
    let mut rows = [&FAMILIES[0][0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        rows[at] = found[at].expect("an architecture has no row");
        at += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_architecture_has_one_row() {
        for &architecture in Architecture::ALL {
            assert_eq!(spec(architecture).architecture, architecture);
        }
        let rows: usize = FAMILIES.iter().map(|family| family.len()).sum();
        assert_eq!(rows, COUNT);
    }
}
