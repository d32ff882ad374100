//! What a model sets its reasoning and its calls of tools apart with: looked for once, in its
//! template and its vocabulary.

/// A mark that opens a part of an answer, and the one that closes it; without one, the part goes
/// on to the next mark or the end.
pub type Pair = (&'static str, &'static str);

/// Reasoning, as models mark it.
const REASONING: [Pair; 15] = [
    ("<think>", "</think>"),
    ("<thought>", "</thought>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("◁think▷", "◁/think▷"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
];

/// Calls of tools, as models mark them.
const CALLS: [Pair; 20] = [
    ("<tool_call>", "</tool_call>"),
    ("<tool_calls>", "</tool_calls>"),
    ("<TOOLCALL>", "</TOOLCALL>"),
    ("<seed:tool_call>", "</seed:tool_call>"),
    ("<minimax:tool_call>", "</minimax:tool_call>"),
    ("<longcat_tool_call>", "</longcat_tool_call>"),
    ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
    ("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"),
    ("<atem:function_calls>", "</atem:function_calls>"),
    ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ("<|tool_call_start|>", "<|tool_call_end|>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<|tool_call>", "<tool_call|>"),
    ("<start_function_call>", "<end_function_call>"),
    ("<|START_ACTION|>", "<|END_ACTION|>"),
    ("<|tools_prefix|>", "<|tools_suffix|>"),
    ("[TOOL_CALLS]", ""),
    ("<|function_call|>", ""),
    ("<|python_tag|>", ""),
];

/// Calls whose marks are a part of them.
const OPEN_CALLS: [Pair; 3] = [
    ("<function=", "</function>"),
    ("<function name=", "</function>"),
    ("<invoke name=", "</invoke>"),
];

/// Those between which there is JSON, unless the template has another form.
const JSON_CALLS: [&str; 4] = ["<tool_call>", "<tool_calls>", "<TOOLCALL>", "<|tool_call|>"];

/// What the other forms between the same marks have.
const OTHER_FORMS: [&str; 4] = ["<arg_key>", "<function=", "<function name=", "<invoke"];

/// The marks of OpenAI's harmony: where a part starts, its kind, its text, and its ends.
const HARMONY: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
];

/// What stands within calls and is a token of its own in some vocabularies.
const INNER: [&str; 12] = [
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "[CALL_ID]",
    "[ARGS]",
    "<escape>",
    "<|\"|>",
    "<arg_key>",
    "<arg_value>",
];

/// The marks of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// Around reasoning.
    pub reasoning: Vec<Pair>,
    /// Around calls.
    pub calls: Vec<Pair>,
    /// Around calls, and a part of them.
    pub open_calls: Vec<Pair>,
    /// Around calls, if all are objects of a `name` and `arguments`.
    pub json: Option<Pair>,
    /// Whether a call may stand there as JSON without any mark (Llama 3).
    pub bare: bool,
    /// Whether all is marked as in OpenAI's harmony, and as nothing else.
    pub harmony: bool,
}

impl Marks {
    /// The marks that are in `template`, or that `is_token` says are one token.
    pub fn find(template: Option<&str>, is_token: &dyn Fn(&str) -> bool) -> Marks {
        let source = template.unwrap_or_default();
        // DeepSeek's templates put these together from parts.
        let dsml = |mark: &str| mark.contains("｜DSML｜") && source.contains("｜DSML｜");
        let known = |mark: &str| source.contains(mark) || is_token(mark) || dsml(mark);
        if known("<|channel|>") && known("<|message|>") {
            return Marks { harmony: true, ..Marks::default() };
        }
        let pairs = |all: &[Pair]| -> Vec<Pair> {
            let known = |&&(open, close): &&Pair| known(open) || !close.is_empty() && known(close);
            all.iter().filter(known).copied().collect()
        };
        let calls = pairs(&CALLS);
        let has = |text: &&str| source.contains(text);
        let json = ["\"name\"", "\"arguments\""].iter().all(has) && !OTHER_FORMS.iter().any(has);
        let json = match calls[..] {
            [only] if json && JSON_CALLS.contains(&only.0) => Some(only),
            _ => None,
        };
        Marks {
            reasoning: pairs(&REASONING),
            calls,
            json,
            open_calls: pairs(&OPEN_CALLS)
                .into_iter()
                .filter(|(open, _)| source.contains(open))
                .collect(),
            bare: known("<|python_tag|>"),
            harmony: false,
        }
    }

    /// Those of reasoning alone.
    pub fn of_reasoning(&self) -> Marks {
        Marks { reasoning: self.reasoning.clone(), harmony: self.harmony, ..Marks::default() }
    }

    /// True for a token that is a mark, or stands in one, though it is a special one.
    pub fn hold(&self, token: &str) -> bool {
        if self.harmony {
            return HARMONY.contains(&token);
        }
        let pairs = self.reasoning.iter().chain(&self.calls).chain(&self.open_calls);
        pairs.into_iter().any(|(open, close)| open.contains(token) || close.contains(token))
            || !self.calls.is_empty() && INNER.iter().any(|mark| mark.contains(token))
    }
}
