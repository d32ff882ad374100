//! Processor of a model: its tokenizer, its chat template and its grammars. It needs no weights,
//! and any thread may use it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mlxk_core::{Error, Facts, Kind, Plan, Result};
use serde_json::Value;

use crate::breakers::{self, Breakers};
use crate::defaults::defaults;
use crate::event::{End, FinishReason, LengthLimit};
use crate::fields::wrong;
use crate::grammar::{
    CallRules, Compiled, Compiler, GrammarConstraint, TextRules, Tools, Vocabulary,
};
use crate::media::{Image, Media, MediaProcessor};
use crate::parser::{Markers, Parser, SectionParser};
use crate::request::{Prompt, Request, Rules};
use crate::response::Generation;
use crate::sampling::Sampling;
use crate::text::template::Template;
use crate::text::tokenizer::Tokenizer;

/// Default maximum number of tokens of a completion.
const MAX_TOKENS: u64 = 32_768;

/// Tokens of a prompt up to which they are counted: this many context lengths, or
/// [`MIN_COUNTED`] if that is more.
const CONTEXTS: u64 = 4;

/// Tokens of a prompt up to which they are counted for any context length.
const MIN_COUNTED: u64 = 1 << 19;

/// Maximum number of stop strings, and of their bytes together: each token is compared with all.
const MAX_STOP: (usize, usize) = (256, 16 << 10);

/// Number of lists of sequence breakers that are kept.
const MAX_BREAKERS: usize = 8;

/// Processor of a model, which prepares requests.
pub struct Processor {
    tokenizer: Arc<Tokenizer>,
    template: Option<Template>,
    /// Processor of pictures, or why the model takes none.
    media: Result<MediaProcessor>,
    markers: Arc<Markers>,
    /// Vocabulary for grammars, made when it is first needed.
    vocabulary: OnceLock<Vocabulary>,
    context_length: Option<u64>,
    defaults: Sampling,
    /// Sequence breakers of the last requests, by their strings.
    breakers: Mutex<Vec<(Vec<String>, Arc<Breakers>)>>,
}

/// Request that is prepared for a model.
pub struct Prepared {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Pictures in the prompt.
    pub media: Vec<Media>,
    /// True if the request gave the prompt in token ids.
    pub from_ids: bool,
    /// Sampling parameters, with the model's defaults filled in.
    pub sampling: Sampling,
    /// Constraint on the tokens of the completion, if there is one.
    pub constraint: Option<GrammarConstraint>,
    /// What the constraint leaves to the model: keywords in the schemas of tools that are not
    /// strict.
    pub unheld: Vec<String>,
    /// Completion that the tokens will become.
    pub generation: Generation,
    /// True if the request states `max_tokens`.
    pub has_max_tokens: bool,
}

/// Prompt as text and as tokens.
#[derive(Default)]
struct Encoded {
    /// Text; empty if the request gave token ids.
    text: String,
    /// Token ids.
    ids: Vec<u32>,
    /// Pictures, each with its placeholder tokens.
    media: Vec<Media>,
}

impl Prepared {
    /// Number of tokens of the prompt.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt.len() as u64
    }

    /// Maximum number of tokens of the completion.
    pub fn limit(&self) -> u64 {
        self.generation.limit
    }
}

impl Processor {
    /// Reads the processor of a model.
    ///
    /// # Errors
    /// If the tokenizer, the chat template or the recommended sampling parameters cannot be used.
    pub fn read(facts: &Facts, plan: &Plan) -> Result<Processor> {
        let tokenizer = Tokenizer::read(facts)?;
        let template = Template::find(facts)?;
        let markers = template.as_ref().map_or_else(Markers::default, |template| {
            Markers::find(Some(template.source()), &|token| tokenizer.added(token).is_some())
        });
        let media = MediaProcessor::read(facts, &tokenizer)?;
        let defaults = defaults(facts, &tokenizer)?;
        let (context_length, vocabulary) = (plan.context_length, OnceLock::new());
        let (tokenizer, markers) = (Arc::new(tokenizer), Arc::new(markers));
        let breakers = Mutex::default();
        Ok(Processor {
            tokenizer,
            template,
            media,
            markers,
            vocabulary,
            context_length,
            defaults,
            breakers,
        })
    }

    /// Tokenizer of the model.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Markers of the model's completions.
    pub fn markers(&self) -> &Markers {
        &self.markers
    }

    /// Context length in tokens, prompt and completion together, if it is known.
    pub fn context_length(&self) -> Option<u64> {
        self.context_length
    }

    /// Sampling parameters for requests that leave them open.
    pub fn defaults(&self) -> &Sampling {
        &self.defaults
    }

    /// Number of tokens of a request's prompt, which may exceed the context length. The work ends
    /// when `gone` is true.
    ///
    /// # Errors
    /// [`Kind::ContextLengthExceeded`] if there are several times more than the context length;
    /// other errors if the model cannot take the prompt, or `gone` is true.
    pub fn count(&self, request: &Request, gone: &dyn Fn() -> bool) -> Result<u64> {
        let limit =
            self.context_length.map(|length| MIN_COUNTED.max(length.saturating_mul(CONTEXTS)));
        match self.prompt(&request.prompt, limit, gone)? {
            Some(Encoded { ids, .. }) => Ok(ids.len() as u64),
            None => {
                let tokens = format!("more than {}", limit.unwrap_or_default());
                Err(too_long(&tokens, self.context_length))
            }
        }
    }

    /// Prepares a request as [`Processor::prepare_unless`] does, to the end.
    ///
    /// # Errors
    /// As those of [`Processor::prepare_unless`].
    pub fn prepare(&self, request: &Request) -> Result<Prepared> {
        self.prepare_unless(request, &|| false)
    }

    /// Prepares a request; the work ends when `gone` is true. Without a chat template, the only
    /// message of a user is the prompt. Rules may take seconds.
    ///
    /// # Errors
    /// [`Kind::ContextLengthExceeded`] if the prompt fills the context; [`Kind::Validation`] if the
    /// prompt is empty, or an option or a rule is invalid; [`Kind::CapabilityNotSupported`] if the
    /// model cannot take the prompt; [`Kind::Execution`] if `gone` is true.
    pub fn prepare_unless(&self, request: &Request, gone: &dyn Fn() -> bool) -> Result<Prepared> {
        let Request { options, rules, .. } = request;
        options.check()?;
        check_stop(options.stop.as_deref().unwrap_or_default())?;
        let found = self.prompt(&request.prompt, self.context_length, gone)?;
        let Some(Encoded { text, ids: prompt, media }) = found else {
            let tokens = format!("more than {}", self.context_length.unwrap_or_default());
            return Err(too_long(&tokens, self.context_length));
        };
        let (limit, limited_by) =
            limit(prompt.len() as u64, options.max_tokens, self.context_length)?;
        let mut sampling = options.sampling(&self.defaults)?;
        if sampling.has_dry() {
            let strings = options.dry_sequence_breakers.as_deref();
            sampling.dry_breakers = Some(self.breakers(strings)?);
        }
        let chat = match &request.prompt {
            Prompt::Chat(chat) => Some(chat),
            Prompt::Text(_) | Prompt::Tokens(_) => None,
        };
        let known = chat.and_then(|chat| chat.tools.as_deref()).unwrap_or_default();
        let required = matches!(rules, Some(Rules::Call(_)));
        let tools: &[Value] = if required { &[] } else { known };
        let grammar_tools = Tools {
            tools: match rules {
                Some(Rules::Call(tools)) => tools,
                _ => tools,
            },
            all: known,
            fields: &request.schema_fields,
        };
        if !tools.is_empty() && !request.lenient {
            self.check_template_has_tools()?;
        }
        if *rules == Some(Rules::Strict) && tools.is_empty() {
            self.forbid_calls(&mut sampling);
        }
        let turn = turn_seed(&sampling, &prompt);
        let parser = |stop: &[String]| {
            let sections = match chat {
                None => SectionParser::Plain,
                Some(_) => SectionParser::new(&self.markers, &text, known),
            };
            Parser::new(&self.tokenizer, stop, sections, turn, required)
        };
        let constraint = |rules: &Rules| match self.markers.harmony && chat.is_some() {
            true => self.harmony_constraint(rules, grammar_tools, &prompt, gone).map(Some),
            false => self.constraint(rules, grammar_tools, parser(&[])?, gone),
        };
        let constraint = rules.as_ref().map(constraint).transpose()?.flatten();
        let (constraint, unheld) = constraint.unzip();
        let generation = Generation {
            parser: parser(options.stop.as_deref().unwrap_or_default())?,
            stop_ids: options.stop_ids.clone().unwrap_or_default(),
            limit,
            limited_by,
            end: End {
                reason: FinishReason::Interrupted,
                prompt_tokens: prompt.len() as u64,
                cached_tokens: 0,
                completion_tokens: 0,
                reasoning_tokens: 0,
                stop: None,
                seed: sampling.seed,
            },
            pending: Vec::new(),
            over: false,
        };
        let from_ids = matches!(request.prompt, Prompt::Tokens(_));
        let has_max_tokens = options.max_tokens.is_some();
        let unheld = unheld.unwrap_or_default();
        Ok(Prepared {
            prompt,
            media,
            from_ids,
            sampling,
            constraint,
            unheld,
            generation,
            has_max_tokens,
        })
    }

    /// Sequence breakers of some strings, or the default ones.
    fn breakers(&self, strings: Option<&[String]>) -> Result<Arc<Breakers>> {
        let strings = match strings {
            Some(strings) => strings.to_vec(),
            None => breakers::DEFAULT.map(str::to_owned).to_vec(),
        };
        let mut kept = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, breakers)) = kept.iter().find(|(known, _)| *known == strings) {
            return Ok(Arc::clone(breakers));
        }
        let breakers = Arc::new(Breakers::new(&strings, &self.tokenizer)?);
        if kept.len() == MAX_BREAKERS {
            kept.remove(0);
        }
        kept.push((strings, Arc::clone(&breakers)));
        Ok(breakers)
    }

    /// Bars the tokens that open tool calls.
    fn forbid_calls(&self, sampling: &mut Sampling) {
        let opening = self.markers.calls.iter().filter_map(|(open, _)| self.tokenizer.added(open));
        let opening: Vec<u32> = opening.collect();
        sampling.logit_bias.retain(|(id, _)| !opening.contains(id));
        sampling.logit_bias.extend(opening.into_iter().map(|id| (id, f32::MIN)));
    }

    /// Checks that the chat template has a place for tools.
    fn check_template_has_tools(&self) -> Result<()> {
        match self.template.as_ref().is_some_and(Template::knows_tools) {
            true => Ok(()),
            false => {
                let message = "`tools`: the model's chat template has no place for them";
                let hint = "a `tool_choice` that demands a call gets one all the same";
                Err(Error::new(Kind::Validation, "", message).hint(hint))
            }
        }
    }

    /// Prompt of a rendered `text` and its pictures; none if it has more than `limit` tokens.
    fn with_media(
        &self,
        text: &str,
        images: &[Image],
        limit: Option<u64>,
        gone: &dyn Fn() -> bool,
    ) -> Result<Option<Encoded>> {
        let media = self.media.as_ref().map_err(Error::clone)?;
        let pixels = media.pixels(images)?;
        let text = media.expand(text, &pixels)?;
        let Some(ids) = self.encode(&text, limit, gone)? else { return Ok(None) };
        let media = media.locate(&ids, pixels)?;
        Ok(Some(Encoded { text, ids, media }))
    }

    /// Tokens of a text; none if there are more than `limit`.
    fn encode(
        &self,
        text: &str,
        limit: Option<u64>,
        gone: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<u32>>> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        self.tokenizer.encode_up_to(text, limit, gone)
    }

    /// Text and tokens of a prompt; none if it has more than `limit` tokens.
    fn prompt(
        &self,
        prompt: &Prompt,
        limit: Option<u64>,
        gone: &dyn Fn() -> bool,
    ) -> Result<Option<Encoded>> {
        let text = match (prompt, &self.template) {
            (Prompt::Tokens(ids), _) => {
                return Ok(Some(Encoded { ids: ids.clone(), ..Encoded::default() }));
            }
            (Prompt::Text(text), _) => text.clone(),
            (Prompt::Chat(conversation), Some(template)) => {
                let tokens = self.tokenizer.special();
                match self.media.as_ref().ok().filter(|_| !conversation.images.is_empty()) {
                    Some(media) if !template.places_pictures(media.placeholder(), tokens) => {
                        let written = conversation.with_placeholders(media.placeholder());
                        template.fit_unless(&written, tokens, gone)?
                    }
                    _ => template.fit_unless(conversation, tokens, gone)?,
                }
            }
            (Prompt::Chat(conversation), None) => {
                conversation.only_text().map(str::to_owned).ok_or_else(|| {
                    let message =
                        "the model has no chat template: it takes a prompt, not a conversation";
                    Error::new(Kind::CapabilityNotSupported, "", message)
                })?
            }
        };
        match prompt {
            Prompt::Chat(conversation) if !conversation.images.is_empty() => {
                self.with_media(&text, &conversation.images, limit, gone)
            }
            _ => {
                let ids = self.encode(&text, limit, gone)?;
                Ok(ids.map(|ids| Encoded { text, ids, media: Vec::new() }))
            }
        }
    }

    /// Constraint by `rules`, with calls of `tools` in place of the text or, if the text is free,
    /// anywhere, and what it leaves to the model; none if the rules constrain nothing.
    fn constraint(
        &self,
        rules: &Rules,
        tools: Tools,
        parser: Parser,
        gone: &dyn Fn() -> bool,
    ) -> Result<Option<(GrammarConstraint, Vec<String>)>> {
        let called = if let Rules::Call(_) = rules { &[] } else { tools.tools };
        if *rules == Rules::Strict && (called.is_empty() || self.markers.json.is_none()) {
            return Ok(None);
        }
        let vocabulary = self.vocabulary()?;
        let compiler = Compiler::new(vocabulary, gone);
        let mut all = Vec::new();
        let mut grammar = |compiled: Compiled| {
            all.extend(compiled.unheld);
            Box::new(compiled.matcher)
        };
        let text = match rules {
            Rules::Strict => TextRules::Free,
            rules => {
                let bare = matches!(rules, Rules::Call(_)) || self.markers.bare;
                let bare = Tools { tools: if bare { tools.tools } else { &[] }, ..tools };
                TextRules::Grammar(grammar(compiler.compile(rules, &bare)?))
            }
        };
        let calls = match self.markers.json {
            _ if called.is_empty() => CallRules::Forbidden,
            Some(pair) => CallRules::Grammar(grammar(compiler.compile_calls(&tools, pair)?)),
            None => CallRules::Free,
        };
        all.sort_unstable();
        all.dedup();
        Ok(Some((self.grammar_constraint(vocabulary, text, calls, Some(parser)), all)))
    }

    /// Constraint by `rules` of a completion of `prompt` in the harmony format, and what it leaves to
    /// the model.
    fn harmony_constraint(
        &self,
        rules: &Rules,
        tools: Tools,
        prompt: &[u32],
        gone: &dyn Fn() -> bool,
    ) -> Result<(GrammarConstraint, Vec<String>)> {
        let vocabulary = self.vocabulary()?;
        let compiler = Compiler::new(vocabulary, gone);
        let Compiled { matcher, unheld } = compiler.compile_harmony(rules, &tools, prompt)?;
        let text = TextRules::Grammar(Box::new(matcher));
        let calls = CallRules::Forbidden;
        Ok((self.grammar_constraint(vocabulary, text, calls, None), unheld))
    }

    fn grammar_constraint(
        &self,
        vocabulary: &Vocabulary,
        text: TextRules,
        calls: CallRules,
        parser: Option<Parser>,
    ) -> GrammarConstraint {
        let (tokenizer, markers) = (&self.tokenizer, &self.markers);
        GrammarConstraint::new(vocabulary, tokenizer, markers, text, calls, parser)
    }

    /// Vocabulary for grammars.
    fn vocabulary(&self) -> Result<&Vocabulary> {
        if let Some(vocabulary) = self.vocabulary.get() {
            return Ok(vocabulary);
        }
        let vocabulary = Vocabulary::new(&self.tokenizer)?;
        Ok(self.vocabulary.get_or_init(|| vocabulary))
    }
}

/// Seed of the ids of tool calls, which differs between the turns of a conversation.
fn turn_seed(sampling: &Sampling, prompt: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (sampling.seed, prompt).hash(&mut hasher);
    hasher.finish()
}

/// Maximum number of tokens of a completion, and the limit that determines it.
fn limit(
    prompt: u64,
    max_tokens: Option<u64>,
    context_length: Option<u64>,
) -> Result<(u64, LengthLimit)> {
    if prompt == 0 {
        let message = "the prompt is empty, and the model needs something to go on from";
        return Err(Error::new(Kind::Validation, "", message));
    }
    let wanted = match max_tokens {
        Some(max_tokens) => (max_tokens, LengthLimit::MaxTokens),
        None => (MAX_TOKENS, LengthLimit::Default),
    };
    match context_length {
        Some(length) if prompt >= length => Err(too_long(&prompt.to_string(), context_length)),
        Some(length) if length - prompt < wanted.0 => {
            Ok((length - prompt, LengthLimit::ContextLength))
        }
        _ => Ok(wanted),
    }
}

/// Error about a prompt that has `tokens`, such as `9` or `more than 9`.
fn too_long(tokens: &str, context_length: Option<u64>) -> Error {
    let length = context_length.unwrap_or_default();
    let message = format!("the prompt has {tokens} tokens, and the model's context holds {length}");
    let hint = "a shorter prompt leaves room for an answer";
    Error::new(Kind::ContextLengthExceeded, "", message).hint(hint)
}

/// Checks that stop strings are few and short.
fn check_stop(stop: &[String]) -> Result<()> {
    let (most, bytes) = MAX_STOP;
    match stop.len() > most || stop.iter().map(String::len).sum::<usize>() > bytes {
        true => Err(wrong("stop", &format!("up to {most} texts of {bytes} bytes together"))),
        false => Ok(()),
    }
}
