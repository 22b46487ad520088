#include "text/chat_template.h"

#include <stdlib.h>
#include <string.h>

#define KEY_TEMPLATE "tokenizer.chat_template"

/* In order: a template belongs to the first family whose marks it has. */
static const chat_family families[] = {
    {.name = "phi4",
     .marks = {"<|im_start|>", "<|im_sep|>"},
     .system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
     .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     .reply = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
     .prompt = "<|im_start|>assistant<|im_sep|>"},
    {.name = "chatml", /* Qwen, DBRX */
     .marks = {"<|im_start|>"},
     .system = {"<|im_start|>system\n", "<|im_end|>\n"},
     .user = {"<|im_start|>user\n", "<|im_end|>\n"},
     .reply = {"<|im_start|>assistant\n", "<|im_end|>\n"},
     .prompt = "<|im_start|>assistant\n"},
    {.name = "kimi-k2", /* Moonlight too */
     .marks = {"<|im_assistant|>", "<|im_middle|>"},
     .system = {"<|im_system|>system<|im_middle|>", "<|im_end|>"},
     .user = {"<|im_user|>user<|im_middle|>", "<|im_end|>"},
     .reply = {"<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"},
     .prompt = "<|im_assistant|>assistant<|im_middle|>"},
    {.name = "mistral-v7",
     .marks = {"[SYSTEM_PROMPT] ", "[INST] "},
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"},
     .user = {"[INST] ", "[/INST]"},
     .reply = {" ", "{eos}"},
     .prompt = "",
     .style = {.bos = true}},
    {.name = "mistral-v7-tekken",
     .marks = {"[SYSTEM_PROMPT]", "[INST]"},
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"},
     .user = {"[INST]", "[/INST]"},
     .reply = {"", "{eos}"},
     .prompt = "",
     .style = {.bos = true}},
    {.name = "mistral-v1", /* Mixtral 8x7B */
     .marks = {"' [INST] ' + system_message"},
     .system = {"", "\n\n"},
     .user = {" [INST] ", " [/INST]"},
     .reply = {" ", "{eos}"},
     .prompt = "",
     .system_in_user = true,
     .style = {.bos = true}},
    {.name = "mistral-v3-tekken",
     .marks = {"[AVAILABLE_TOOLS]", "\"[INST]\""},
     .system = {"", "\n\n"},
     .user = {"[INST]", "[/INST]"},
     .reply = {"", "{eos}"},
     .prompt = "",
     .system_in_user = true,
     .style = {.bos = true}},
    {.name = "mistral-v3", /* Mixtral 8x22B */
     .marks = {"[AVAILABLE_TOOLS]", "[INST]"},
     .system = {"", "\n\n"},
     .user = {"[INST] ", "[/INST]"},
     .reply = {" ", "{eos}"},
     .prompt = "",
     .system_in_user = true,
     .style = {.bos = true, .trim_reply = true}},
    {.name = "llama2",
     .marks = {"[INST]", "<<SYS>>"},
     .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .user = {"[INST] ", " [/INST]"},
     .reply = {"", "{eos}"},
     .prompt = "",
     .system_in_user = true,
     .varies = true,
     .style = {.bos = true, .bos_between = true, .trim = true, .space_before_reply = true, .space_after_reply = true}},
    {.name = "mistral", /* before there were versions */
     .marks = {"[INST]"},
     .system = {"", "\n"},
     .user = {"[INST] ", " [/INST]"},
     .reply = {"", "{eos}"},
     .prompt = "",
     .system_in_user = true,
     .varies = true,
     .style = {.bos = true}},
    {.name = "phi3",
     .marks = {"<|assistant|>", "<|end|>"},
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .reply = {"<|assistant|>\n", "<|end|>\n"},
     .prompt = "<|assistant|>\n"},
    {.name = "llama3",
     .marks = {"<|start_header_id|>", "<|end_header_id|>"},
     .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     .reply = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n",
     .style = {.bos = true, .trim = true}},
    {.name = "granite",
     .marks = {"<|start_of_role|>", "<|end_of_role|>"},
     .system = {"<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n"},
     .user = {"<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"},
     .reply = {"<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"},
     .prompt = "<|start_of_role|>assistant<|end_of_role|>"},
    {.name = "deepseek", /* DeepSeek Coder */
     .marks = {"### Instruction:", "<|EOT|>"},
     .system = {"", ""},
     .user = {"### Instruction:\n", "\n"},
     .reply = {"### Response:\n", "\n<|EOT|>\n"},
     .prompt = "### Response:\n",
     .style = {.bos = true}},
    {.name = "deepseek2",
     .marks = {"'Assistant: ' + message['content'] + eos_token"},
     .system = {"", "\n\n"},
     .user = {"User: ", "\n\n"},
     .reply = {"Assistant: ", "{eos}"},
     .prompt = "Assistant:",
     .style = {.bos = true}},
    {.name = "deepseek3", /* from V2.5 on, and R1 */
     .marks = {"<｜Assistant｜>", "<｜User｜>"},
     .system = {"", ""},
     .user = {"<｜User｜>", ""},
     .reply = {"<｜Assistant｜>", "{eos}"},
     .prompt = "<｜Assistant｜>",
     .style = {.bos = true}},
    {.name = "zephyr", /* marks: see is_zephyr() */
     .system = {"<|system|>\n", "{eos}\n"},
     .user = {"<|user|>\n", "{eos}\n"},
     .reply = {"<|assistant|>\n", "{eos}\n"},
     .prompt = "<|assistant|>\n"},
    {.name = "tulu", /* OLMoE */
     .marks = {"<|user|>", "<|assistant|>", "eos_token"},
     .system = {"<|system|>\n", "\n"},
     .user = {"<|user|>\n", "\n"},
     .reply = {"<|assistant|>\n", "{eos}\n"},
     .prompt = "<|assistant|>\n",
     .style = {.bos = true}},
};

const chat_family *chat_family_at(size_t i)
{
    return i < sizeof families / sizeof *families ? &families[i] : NULL;
}

const chat_family *chat_family_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strlen(families[i].name) == len && memcmp(families[i].name, name, len) == 0) return &families[i];
    return NULL;
}

/* ---- what a template tells ---- */

static bool has(gguf_string text, const char *mark)
{
    return memmem(text.data, text.len, mark, strlen(mark)) != NULL;
}

/* The user's turn ends with EOS, said by name or written out: that of Tulu does not. */
static bool is_zephyr(gguf_string text)
{
    const char *user = memmem(text.data, text.len, "<|user|>", 8);
    if (!user || !has(text, "<|assistant|>")) return false;
    gguf_string rest = {user, text.len - (size_t)(user - text.data)};
    const char *end = memmem(rest.data, rest.len, "}}", 2);
    if (end) rest.len = (size_t)(end - rest.data);
    return has(rest, "eos_token") || has(rest, "<|endoftext|>") || has(rest, "</s>");
}

static bool has_marks(const chat_family *f, gguf_string text)
{
    if (!f->marks[0]) return is_zephyr(text);
    for (size_t i = 0; i < sizeof f->marks / sizeof *f->marks && f->marks[i]; i++)
        if (!has(text, f->marks[i])) return false;
    return true;
}

static const chat_family *detect(gguf_string text)
{
    const chat_family *named = chat_family_find(text.data, text.len); /* some files name a family only */
    for (size_t i = 0; !named && i < sizeof families / sizeof *families; i++)
        if (has_marks(&families[i], text)) named = &families[i];
    return named;
}

static bool begins_with_eos(gguf_string text)
{
    return memmem(text.data, text.len < 16 ? text.len : 16, "eos_token", 9) != NULL;
}

static chat_style detect_style(const chat_family *f, gguf_string text)
{
    chat_style style = f->style;
    if (strlen(f->name) == text.len) return style; /* named only */
    style.bos = has(text, "bos_token");
    style.eos_first = begins_with_eos(text); /* "{{ eos_token }}", OLMo */
    style.drop_reasoning = has(text, "</think>");
    if (!f->varies) return style;
    style.trim = has(text, "content.strip()");
    style.bos_between = has(text, "bos_token + '[INST]");
    style.space_before_reply = has(text, "' '  + content") || has(text, "' ' + content") ||
                               has(text, "' '  + message") || has(text, "' ' + message");
    style.space_after_reply = has(text, "' ' + eos_token");
    return style;
}

/* Qwen's templates hold the system message that stands where there is none, as a literal: what lies between
 * "<|im_start|>system\n" and "<|im_end|>" without quote or brace. */
static gguf_string find_system_after(gguf_string text, const char *head)
{
    static const char tail[] = "<|im_end|>";
    const char *end = text.data + text.len;
    for (const char *at = text.data; (at = memmem(at, (size_t)(end - at), head, strlen(head))) != NULL;) {
        at += strlen(head);
        const char *stop = memmem(at, (size_t)(end - at), tail, sizeof tail - 1);
        if (!stop) break;
        bool literal = stop > at;
        for (const char *c = at; c < stop; c++) literal &= *c != '\'' && *c != '"' && *c != '{' && *c != '\\';
        if (literal) return (gguf_string){at, (size_t)(stop - at)};
    }
    return (gguf_string){NULL, 0};
}

/* The line may end as a string of the template says it, or as itself. */
static gguf_string find_system(gguf_string text)
{
    const gguf_string escaped = find_system_after(text, "<|im_start|>system\\n");
    return escaped.data ? escaped : find_system_after(text, "<|im_start|>system\n");
}

mp_status chat_template_init(chat_template *t, const gguf *g, mp_error *err)
{
    gguf_string text;
    *t = (chat_template){0};
    if (!gguf_has(g, KEY_TEMPLATE)) return MP_OK;
    MP_TRY(gguf_get_string(g, KEY_TEMPLATE, &text, err));
    t->present = true;
    t->family = detect(text);
    if (!t->family) return MP_OK;
    t->style = detect_style(t->family, text);
    gguf_string system = has_marks(t->family, text) ? find_system(text) : (gguf_string){NULL, 0};
    if (!system.data) return MP_OK;
    t->system = strndup(system.data, system.len);
    return t->system ? MP_OK : status_no_memory(err, system.len + 1, "the chat template");
}

void chat_template_clear(chat_template *t)
{
    free(t->system);
    *t = (chat_template){0};
}
