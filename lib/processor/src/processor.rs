//! What stands between requests and a model: its tokenizer, its chat template, and what rules are
//! made ready with. It needs no weights, and any thread may use it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use mlxk_core::{Error, Facts, Kind, Plan, Result};
use serde_json::Value;

use crate::conversation::Conversation;
use crate::defaults::defaults;
use crate::event::{Bound, End, Reason};
use crate::grammar::{Besides, Ruled, Text, Vocabulary};
use crate::parser::{Answer, Marks, Reader};
use crate::request::{Prompt, Request, Rules};
use crate::response::Generation;
use crate::sampling::Sampling;
use crate::text::template::Template;
use crate::text::tokenizer::Tokenizer;

/// The longest answer that is given without being asked for, in tokens.
const MAX_TOKENS: u64 = 32_768;

/// Makes requests ready for a model.
pub struct Processor {
    tokenizer: Arc<Tokenizer>,
    template: Option<Template>,
    marks: Arc<Marks>,
    /// Made when it is first needed.
    vocabulary: OnceLock<Vocabulary>,
    window: Option<u64>,
    defaults: Sampling,
}

/// A request that a model can begin with.
pub struct Prepared {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// True if the request gave the prompt in tokens.
    pub given: bool,
    /// Sampling parameters, with the model's defaults filled in.
    pub sampling: Sampling,
    /// Constraint on the tokens of the answer, if there is one.
    pub rules: Option<Ruled>,
    /// Answer that the tokens will become.
    pub generation: Generation,
    asked: bool,
}

impl Prepared {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt.len() as u64
    }

    /// The most tokens that the answer may have.
    pub fn limit(&self) -> u64 {
        self.generation.limit
    }

    /// Whether the request says how long its answer may be.
    pub fn is_bounded(&self) -> bool {
        self.asked
    }
}

impl Processor {
    /// Reads that of a model.
    ///
    /// # Errors
    /// If its tokenizer or its chat template cannot be used, or what it recommends for sampling
    /// makes no sense.
    pub fn read(facts: &Facts, plan: &Plan) -> Result<Processor> {
        let tokenizer = Tokenizer::read(facts)?;
        let template = Template::find(facts)?;
        let marks = template.as_ref().map_or_else(Marks::default, |template| {
            Marks::find(Some(template.source()), &|token| tokenizer.added(token).is_some())
        });
        let defaults = defaults(facts, &tokenizer)?;
        let (window, vocabulary) = (plan.context_length, OnceLock::new());
        let (tokenizer, marks) = (Arc::new(tokenizer), Arc::new(marks));
        Ok(Processor { tokenizer, template, marks, vocabulary, window, defaults })
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The markers of the model's answers.
    pub fn markers(&self) -> &Marks {
        &self.marks
    }

    /// How many tokens a prompt and its answer may have together, if that is known.
    pub fn context_length(&self) -> Option<u64> {
        self.window
    }

    /// How to sample where a request does not say otherwise.
    pub fn defaults(&self) -> &Sampling {
        &self.defaults
    }

    /// How many tokens the prompt of `request` has, which may be more than the model takes.
    ///
    /// # Errors
    /// If the prompt is not what the model takes.
    pub fn count(&self, request: &Request) -> Result<u64> {
        Ok(self.prompt(&request.prompt)?.1.len() as u64)
    }

    /// Makes `request` ready. Without a chat template the one message of a user is the prompt as it
    /// is. Rules may take seconds.
    ///
    /// # Errors
    /// If the prompt has no tokens, or as many as fit the model ([`Kind::ContextLengthExceeded`]),
    /// or is not what the model takes; if the rules cannot be followed.
    pub fn prepare(&self, request: &Request) -> Result<Prepared> {
        let Request { options, rules, .. } = request;
        options.check()?;
        let (text, prompt) = self.prompt(&request.prompt)?;
        let (limit, bound) = budget(prompt.len() as u64, options.max_tokens, self.window)?;
        let mut sampling = options.sampling(&self.defaults)?;
        let reader = || match &request.prompt {
            Prompt::Text(_) | Prompt::Tokens(_) => Reader::Plain,
            Prompt::Chat(chat) => {
                Reader::new(&self.marks, &text, chat.tools.as_deref().unwrap_or_default())
            }
        };
        let is_harmony = self.marks.harmony && matches!(request.prompt, Prompt::Chat(_));
        let demanded = matches!(rules, Some(Rules::Call(_)));
        let mut turn = DefaultHasher::new();
        (sampling.seed, &prompt).hash(&mut turn);
        let turn = turn.finish();
        let answer = |stop: &[String]| Answer::new(&self.tokenizer, stop, reader(), turn, demanded);
        let tools = match &request.prompt {
            Prompt::Chat(Conversation { tools: Some(tools), .. }) if !demanded => &tools[..],
            _ => &[],
        };
        if !tools.is_empty() && !request.lenient {
            self.knows_tools()?;
        }
        if *rules == Some(Rules::Strict) && tools.is_empty() {
            let barred = self.marks.calls.iter().filter_map(|(open, _)| self.tokenizer.added(open));
            let barred: Vec<u32> = barred.collect();
            sampling.logit_bias.retain(|(id, _)| !barred.contains(id));
            sampling.logit_bias.extend(barred.into_iter().map(|id| (id, f32::MIN)));
        }
        let ruled = |rules: &Rules| match is_harmony {
            true => self.in_harmony(rules, tools, &prompt).map(Some),
            false => self.ruled(rules, answer(&[])?, tools),
        };
        let generation = Generation {
            answer: answer(&options.stop)?,
            stop_ids: options.stop_ids.clone(),
            limit,
            bound,
            end: End {
                reason: Reason::Interrupted,
                prompt_tokens: prompt.len() as u64,
                cached_tokens: 0,
                completion_tokens: 0,
                reasoning_tokens: 0,
                stop: None,
                seed: sampling.seed,
            },
            waiting: Vec::new(),
            over: false,
        };
        let rules = rules.as_ref().map(ruled).transpose()?.flatten();
        let given = matches!(request.prompt, Prompt::Tokens(_));
        let asked = options.max_tokens.is_some();
        Ok(Prepared { prompt, given, sampling, rules, generation, asked })
    }

    /// Errors if the model cannot be told what it may call.
    fn knows_tools(&self) -> Result<()> {
        match self.template.as_ref().is_some_and(Template::knows_tools) {
            true => Ok(()),
            false => {
                let message = "`tools`: the model's chat template has no place for them";
                let hint = "a `tool_choice` that demands a call gets one all the same";
                Err(Error::new(Kind::Validation, "", message).hint(hint))
            }
        }
    }

    /// The text of a prompt, and its tokens; those that are given have no text.
    fn prompt(&self, prompt: &Prompt) -> Result<(String, Vec<u32>)> {
        let text = match (prompt, &self.template) {
            (Prompt::Tokens(tokens), _) => return Ok((String::new(), tokens.clone())),
            (Prompt::Text(text), _) => text.clone(),
            (Prompt::Chat(conversation), Some(template)) => {
                template.fit(conversation, self.tokenizer.special())?
            }
            (Prompt::Chat(conversation), None) => {
                conversation.only_text().map(str::to_owned).ok_or_else(|| {
                    let message =
                        "the model has no chat template: it takes a prompt, not a conversation";
                    Error::new(Kind::CapabilityNotSupported, "", message)
                })?
            }
        };
        let tokens = self.tokenizer.encode(&text)?;
        Ok((text, tokens))
    }

    /// What keeps to `rules` in an answer that `reading` reads along, with calls of `tools` in its
    /// place or, if it is free, anywhere; nothing if there is nothing that can be held to them.
    fn ruled(&self, rules: &Rules, reading: Answer, tools: &[Value]) -> Result<Option<Ruled>> {
        if *rules == Rules::Strict && (tools.is_empty() || self.marks.json.is_none()) {
            return Ok(None);
        }
        let vocabulary = self.vocabulary()?;
        let text = match rules {
            Rules::Strict => Text::Free,
            rules => {
                let bare = if self.marks.bare { tools } else { &[] };
                Text::Held(Box::new(vocabulary.ready(rules, bare)?))
            }
        };
        let besides = match self.marks.json {
            _ if tools.is_empty() => Besides::Nothing,
            Some(marks) => Besides::Ruled(Box::new(vocabulary.calls(tools, marks)?)),
            None => Besides::Calls,
        };
        Ok(Some(Ruled::new(vocabulary, &self.tokenizer, &self.marks, text, Some(reading), besides)))
    }

    /// The same for an answer in harmony to `prompt`.
    fn in_harmony(&self, rules: &Rules, tools: &[Value], prompt: &[u32]) -> Result<Ruled> {
        let vocabulary = self.vocabulary()?;
        let text = Text::Held(Box::new(vocabulary.harmony(rules, tools, prompt)?));
        Ok(Ruled::new(vocabulary, &self.tokenizer, &self.marks, text, None, Besides::Nothing))
    }

    /// The vocabulary, for rules.
    fn vocabulary(&self) -> Result<&Vocabulary> {
        if let Some(vocabulary) = self.vocabulary.get() {
            return Ok(vocabulary);
        }
        let vocabulary = Vocabulary::new(&self.tokenizer)?;
        Ok(self.vocabulary.get_or_init(|| vocabulary))
    }
}

/// How many tokens may come, and why not more.
fn budget(prompt: u64, asked: Option<u64>, window: Option<u64>) -> Result<(u64, Bound)> {
    if prompt == 0 {
        let message = "the prompt is empty, and the model needs something to go on from";
        return Err(Error::new(Kind::Validation, "", message));
    }
    let wanted = match asked {
        Some(asked) => (asked, Bound::Asked),
        None => (MAX_TOKENS, Bound::Default),
    };
    match window {
        Some(window) if prompt >= window => Err(Error::new(
            Kind::ContextLengthExceeded,
            "",
            format!("the prompt has {prompt} tokens, and the model's context holds {window}"),
        )
        .hint("a shorter prompt leaves room for an answer")),
        Some(window) if window - prompt < wanted.0 => Ok((window - prompt, Bound::Window)),
        _ => Ok(wanted),
    }
}
