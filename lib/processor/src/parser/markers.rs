//! Markers of reasoning and tool calls, found once in a model's chat template and vocabulary.

/// Marker that opens a section of a completion, and the marker that closes it; with an empty one
/// the section goes on to the next marker or the end.
pub type Pair = (&'static str, &'static str);

/// Markers of reasoning.
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

/// Markers of tool calls.
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

/// Markers of tool calls that are a part of the call.
const OPEN_CALLS: [Pair; 3] = [
    ("<function=", "</function>"),
    ("<function name=", "</function>"),
    ("<invoke name=", "</invoke>"),
];

/// Opening markers of calls that are JSON, unless the template shows another form.
const JSON_CALLS: [&str; 4] = ["<tool_call>", "<tool_calls>", "<TOOLCALL>", "<|tool_call|>"];

/// Signs of other forms of calls between the same markers.
const OTHER_FORMS: [&str; 4] = ["<arg_key>", "<function=", "<function name=", "<invoke"];

/// Markers of OpenAI's harmony format: start of a message, its channel, its text, and its ends.
const HARMONY: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
];

/// Markers within tool calls that are special tokens in some vocabularies.
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

/// Markers of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Markers {
    /// Markers around reasoning.
    pub reasoning: Vec<Pair>,
    /// Markers around tool calls.
    pub calls: Vec<Pair>,
    /// Markers around tool calls that are a part of the call.
    pub open_calls: Vec<Pair>,
    /// Markers around tool calls if these are JSON objects with `name` and `arguments`.
    pub json: Option<Pair>,
    /// True if a tool call may be JSON without any marker (Llama 3).
    pub bare: bool,
    /// True if the model writes OpenAI's harmony format; it has no other markers then.
    pub harmony: bool,
}

impl Markers {
    /// Finds the markers that occur in `template`, or that `is_token` knows as one token.
    pub fn find(template: Option<&str>, is_token: &dyn Fn(&str) -> bool) -> Markers {
        let source = template.unwrap_or_default();
        // DeepSeek's templates put these together from parts.
        let dsml = |marker: &str| marker.contains("｜DSML｜") && source.contains("｜DSML｜");
        let known = |marker: &str| source.contains(marker) || is_token(marker) || dsml(marker);
        if known("<|channel|>") && known("<|message|>") {
            return Markers { harmony: true, ..Markers::default() };
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
        Markers {
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

    /// Markers of reasoning, without those of tool calls.
    pub fn reasoning_only(&self) -> Markers {
        Markers { reasoning: self.reasoning.clone(), harmony: self.harmony, ..Markers::default() }
    }

    /// True if a special token is a marker or a part of one.
    pub fn contain(&self, token: &str) -> bool {
        if self.harmony {
            return HARMONY.contains(&token);
        }
        let pairs = self.reasoning.iter().chain(&self.calls).chain(&self.open_calls);
        pairs.into_iter().any(|(open, close)| open.contains(token) || close.contains(token))
            || !self.calls.is_empty() && INNER.iter().any(|marker| marker.contains(token))
    }
}
