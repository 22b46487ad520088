/* Pre-tokenizers: a table of regular expressions, compiled by PCRE2 with Unicode properties and its just-in-time
 * compiler where there is one.
 *
 * The expressions are those of the models' own tokenizers with two changes that make no difference to what matches.
 * White space is written out as Unicode's White_Space, because PCRE2's \s has U+180E too. And "white space at the end"
 * begins with a look-behind: without it PCRE2's interpreter tries every character of a long run of spaces and takes
 * quadratic time. */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "text/pretokenizer.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STAGES 6

/* Members of a class. */
#define WS          "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define ASCII_PUNCT "!-/:-@\\[-`{-~"
#define UPPER       "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER       "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
/* The letters with case that DeepSeek LLM's tokenizer lists. */
#define CASED                                                                                                          \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"                    \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}"             \
    "\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"                    \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                  \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"                  \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}"          \
    "\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"         \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}"                    \
    "\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"                    \
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}"                   \
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"                  \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"                \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"                             \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

#define S           "[" WS "]"
#define SPACES      S "+(?![^" WS "])|" S "+" /* all but the last of those before a word, which the word takes */
#define LINES       S "*[\\r\\n]+|"
#define SHORT_FORMS "'(?:[stmdSTMD]|[rR][eE]|[vV][eE]|[lL][lL])"

#define GPT2 "'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES
/* What came after GPT-4: a word takes one character before it, line ends stay with what they follow. */
#define GPT4(word, digits) "[^\\r\\n\\p{L}\\p{N}]?" word "+|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" LINES SPACES
#define LLAMA3             SHORT_FORMS "|" GPT4("\\p{L}", "\\p{N}{1,3}")
#define QWEN2              SHORT_FORMS "|" GPT4("\\p{L}", "\\p{N}")
#define QWEN35                                                                                                         \
    SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES SPACES
#define BAILING                                                                                                        \
    SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" S "*[\\r\\n]|" SPACES
#define SEED SHORT_FORMS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" LINES SPACES
/* Words that change from upper to lower case once; `suffix` ends a word. */
#define CASE_WORDS(suffix)                                                                                             \
    "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" suffix "|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER "]*" suffix "|"
#define GPT4O  CASE_WORDS("(?:" SHORT_FORMS ")?") "\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES SPACES
#define TEKKEN CASE_WORDS("") "\\p{N}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" LINES SPACES
/* As GPT4O, but Chinese characters are words of their own. The classes are UPPER and LOWER without them, said by what
 * they are not. */
#define NOT_HAN    "\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{sc:Han}"
#define KIMI_UPPER "[^\\p{Ll}" NOT_HAN "]"
#define KIMI_LOWER "[^\\p{Lu}\\p{Lt}" NOT_HAN "]"
#define KIMI_END   "(?:" SHORT_FORMS ")?|"
#define KIMI                                                                                                           \
    "\\p{sc:Han}+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" KIMI_END "[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER   \
    "+" KIMI_LOWER "*" KIMI_END "\\p{N}{1,3}| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" LINES SPACES
#define BLOOM     " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"
#define CHAMELEON "(?:IMGIMG)[A-I]{1,4}Z"
#define DEEPSEEK3                                                                                                      \
    "[" ASCII_PUNCT "][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES SPACES
#define EAST_ASIAN "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const struct row {
    const char *names; /* separated by spaces; the first one stands for the row in messages */
    const char *stages[MAX_STAGES];
    bool whole_words, adds_bos;
} rows[] = {
    {.names = "gpt-2 olmo phi-2 mpt jais jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe "
              "gigachat trillion granite-docling exaone4 a.x-4.0 mellum modern-bert",
     .stages = {GPT2}},
    {.names = "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", .stages = {"\\p{N}", GPT2}},
    {.names = "default", .stages = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "falcon", .stages = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .stages = {LLAMA3},
     .whole_words = true,
     .adds_bos = true},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe", .stages = {LLAMA3}},
    {.names = "qwen2 stablelm2 deepseek-r1-qwen kormo f2llmv2 megrez hunyuan solar-open grok-2", .stages = {QWEN2}},
    {.names = "qwen35", .stages = {QWEN35}},
    {.names = "deepseek-llm",
     .stages = {"[\\r\\n]", S "?[" CASED "]+",
                S "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
                "(?<!" S ")" S "+$", EAST_ASIAN, "\\p{N}+"}},
    {.names = "deepseek-coder", .stages = {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", EAST_ASIAN, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .stages = {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+", DEEPSEEK3}},
    {.names = "tekken", .stages = {TEKKEN}, .whole_words = true, .adds_bos = true},
    {.names = "gpt-4o llama4 kanana2 minimax-m2 talkie", .stages = {GPT4O}},
    {.names = "bailingmoe bailingmoe2 llada-moe", .stages = {BAILING}},
    {.names = "seed-coder", .stages = {SEED}},
    {.names = "kimi-k2", .stages = {KIMI}},
    {.names = "bloom poro-chat gpt3-finnish", .stages = {BLOOM}},
    {.names = "viking", .stages = {BLOOM, "\\p{N}"}},
    {.names = "minicpm5", .stages = {"\\p{N}{1,3}", SHORT_FORMS "|" GPT4("\\p{L}", "\\p{N}+")}, .whole_words = true},
    {.names = "ufakzeka", .stages = {GPT4("\\p{L}", "\\p{N}")}},
    {.names = "laguna", .stages = {"\\n+", QWEN2}},
    {.names = "chameleon",
     .stages = {"<sentinel:[0-9]+>", CHAMELEON, "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}" ASCII_PUNCT "]", GPT2},
     .adds_bos = true},
};

struct pretokenizer {
    const struct row *row;
    pcre2_code *stages[MAX_STAGES];
    size_t n_stages;
    pcre2_match_context *match;
};

struct pretokenizer_scratch {
    pcre2_match_data *data;
};

static bool has_name(const struct row *row, const char *name, size_t len)
{
    for (const char *s = row->names;;) {
        size_t n = strcspn(s, " ");
        if (n == len && memcmp(s, name, len) == 0) return true;
        if (s[n] == 0) return false;
        s += n + 1;
    }
}

static mp_status fail_name(const char *name, size_t len, mp_error *err)
{
    char list[320] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strcspn(rows[i].names, " ");
        assert(used + n + 3 < sizeof list);
        if (i) list[used++] = ',', list[used++] = ' ';
        memcpy(list + used, rows[i].names, n);
        used += n;
    }
    list[used] = 0;
    return status_fail(err, MP_E_UNSUPPORTED,
                       "tokenizer.ggml.pre = \"%.*s\": not supported; what is, aliases aside: %s",
                       (int)(len < 64 ? len : 64), name, list);
}

static mp_status compile(pretokenizer *p, mp_error *err)
{
    for (; p->n_stages < MAX_STAGES && p->row->stages[p->n_stages]; p->n_stages++) {
        const char *text = p->row->stages[p->n_stages];
        int code = 0;
        PCRE2_SIZE offset = 0;
        pcre2_code *stage = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                                          PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &offset, NULL);
        if (!stage)
            return status_fail(err, MP_E_UNSUPPORTED, "this PCRE2 refuses the pre-tokenizer at %s (error %d)",
                               text + offset, code);
        pcre2_jit_compile(stage, PCRE2_JIT_COMPLETE); /* without it the interpreter gives the same matches */
        p->stages[p->n_stages] = stage;
    }
    return MP_OK;
}

mp_status pretokenizer_new(const char *name, size_t len, pretokenizer **out, mp_error *err)
{
    const struct row *row = NULL;
    *out = NULL;
    for (size_t i = 0; !row && i < sizeof rows / sizeof *rows; i++)
        if (has_name(&rows[i], name, len)) row = &rows[i];
    if (!row) return fail_name(name, len, err);
    pretokenizer *p = calloc(1, sizeof *p);
    if (!p) return status_no_memory(err, sizeof *p, "the pre-tokenizer");
    p->row = row;
    p->match = pcre2_match_context_create(NULL);
    mp_status status = p->match ? compile(p, err) : status_no_memory(err, sizeof *p, "the pre-tokenizer");
    if (status) {
        pretokenizer_free(p);
        return status;
    }
    pcre2_set_match_limit(p->match, UINT32_MAX); /* the table is linear in the text: only its length is in the way */
    *out = p;
    return MP_OK;
}

void pretokenizer_free(pretokenizer *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n_stages; i++) pcre2_code_free(p->stages[i]);
    pcre2_match_context_free(p->match);
    free(p);
}

bool pretokenizer_whole_words(const pretokenizer *p)
{
    return p->row->whole_words;
}

bool pretokenizer_adds_bos(const pretokenizer *p)
{
    return p->row->adds_bos;
}

mp_status pretokenizer_scratch_new(pretokenizer_scratch **out, mp_error *err)
{
    pretokenizer_scratch *scratch = calloc(1, sizeof *scratch);
    if (scratch) scratch->data = pcre2_match_data_create(16, NULL);
    if (!scratch || !scratch->data) {
        free(scratch);
        return status_no_memory(err, sizeof *scratch, "the pre-tokenizer");
    }
    *out = scratch;
    return MP_OK;
}

void pretokenizer_scratch_free(pretokenizer_scratch *scratch)
{
    if (!scratch) return;
    pcre2_match_data_free(scratch->data);
    free(scratch);
}

typedef struct split_job {
    const pretokenizer *p;
    pcre2_match_data *data;
    pretokenizer_fn emit;
    void *user;
    mp_error *err;
} split_job;

/* Cuts a piece by the stages from `stage` on. Stages share the match data: nothing of it is read after the descent. */
static mp_status split_piece(const split_job *job, size_t stage, const char *text, size_t len)
{
    if (len == 0) return MP_OK;
    if (stage == job->p->n_stages) return job->emit(job->user, text, len, job->err);
    size_t at = 0;
    while (at < len) {
        int found =
            pcre2_match(job->p->stages[stage], (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, job->data, job->p->match);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0)
            return status_fail(job->err, MP_E_LIMIT, "the pre-tokenizer failed on %zu bytes of text (PCRE2 error %d)",
                               len, found);
        const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(job->data);
        size_t from = ends[0], to = ends[1];
        assert(from >= at && to > from); /* no row matches the empty string */
        MP_TRY(split_piece(job, stage + 1, text + at, from - at));
        MP_TRY(split_piece(job, stage + 1, text + from, to - from));
        at = to;
    }
    return split_piece(job, stage + 1, text + at, len - at);
}

mp_status pretokenizer_split(const pretokenizer *p, pretokenizer_scratch *scratch, const char *text, size_t len,
                             pretokenizer_fn emit, void *user, mp_error *err)
{
    split_job job = {p, scratch->data, emit, user, err};
    return split_piece(&job, 0, text, len);
}
