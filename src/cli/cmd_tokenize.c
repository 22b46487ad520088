/* tokenize, detokenize: between text and token ids. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/ids.h"
#include "cli/output.h"
#include "cli/utf8.h"

enum { TOKEN_BYTES_MAX = 4096 };

typedef struct tokenize_options {
    cli_common common;
    const char *prompt, *file;
    bool ids, no_bos, no_eos, no_special;
} tokenize_options;

static void print_tokens(const mp_model *model, const int32_t *ids, size_t n, bool ids_only)
{
    char bytes[TOKEN_BYTES_MAX];
    for (size_t i = 0; i < n; i++) {
        if (ids_only) {
            printf("%s%d", i == 0 ? "" : " ", ids[i]);
            continue;
        }
        size_t len = mp_token_bytes(model, ids[i], true, bytes, sizeof bytes);
        if (len > sizeof bytes) len = sizeof bytes;
        printf("%6d  '", ids[i]);
        utf8_print_escaped(bytes, len, stdout);
        puts("'");
    }
    if (ids_only) puts("");
}

static int tokenize(const cli_command *self, const void *options)
{
    const tokenize_options *o = options;
    mp_error err;
    mp_model *model = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t len = 0, n = 0;
    const unsigned flags = (o->no_bos ? 0 : MP_TOKENIZE_BOS) | (o->no_eos ? 0 : MP_TOKENIZE_EOS) |
                           (o->no_special ? 0 : MP_TOKENIZE_SPECIAL);
    if (o->prompt != NULL && o->file != NULL) return cli_usage(self, "give one of --prompt and --file");
    mp_status status = mp_model_open(o->common.args[0], &(mp_model_params){.vocab_only = true}, &model, &err);
    if (status == MP_OK && o->prompt == NULL) status = input_read(o->file, &text, &len, &err);
    if (status == MP_OK && o->prompt != NULL)
        status = ids_of_text(model, o->prompt, strlen(o->prompt), flags, &ids, &n, &err);
    else if (status == MP_OK)
        status = ids_of_text(model, text, len, flags, &ids, &n, &err);
    if (status == MP_OK) print_tokens(model, ids, n, o->ids);
    free(ids);
    free(text);
    mp_model_close(model);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

static mp_status print_text(const mp_model *model, const int32_t *ids, size_t n, bool special, mp_error *err)
{
    const size_t len = mp_detokenize(model, ids, n, special, NULL, 0);
    char *text = malloc(len + 1);
    if (text == NULL) return status_no_memory(err, len + 1, "the text");
    mp_detokenize(model, ids, n, special, text, len);
    fwrite(text, 1, len, stdout);
    free(text);
    return MP_OK;
}

static int detokenize(const cli_command *self, const void *options)
{
    (void)self;
    const tokenize_options *o = options;
    const char *from = o->file != NULL ? o->file : "standard input";
    mp_error err;
    mp_model *model = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t len = 0, n = 0;
    mp_status status = mp_model_open(o->common.args[0], &(mp_model_params){.vocab_only = true}, &model, &err);
    if (status == MP_OK) status = input_read(o->file, &text, &len, &err);
    if (status == MP_OK) status = ids_parse(text, len, from, mp_model_get_info(model)->n_vocab, &ids, &n, &err);
    if (status == MP_OK) status = print_text(model, ids, n, !o->no_special, &err);
    free(ids);
    free(text);
    mp_model_close(model);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(tokenize_options, member)

static const option_spec tokenize_specs[] = {
    {.name = "prompt",
     .letter = 'p',
     .kind = OPTION_TEXT,
     .offset = AT(prompt),
     .argument = "TEXT",
     .help = "the text itself"},
    {.name = "file",
     .letter = 'f',
     .kind = OPTION_TEXT,
     .offset = AT(file),
     .argument = "FILE",
     .help = "read the text from FILE (default, and -: standard input)"},
    {.name = "ids", .kind = OPTION_FLAG, .offset = AT(ids), .help = "print only the ids, in one line"},
    {.name = "no-bos",
     .kind = OPTION_FLAG,
     .offset = AT(no_bos),
     .help = "do not begin with the BOS token even where the model wants one"},
    {.name = "no-eos",
     .kind = OPTION_FLAG,
     .offset = AT(no_eos),
     .help = "do not end with the EOS token even where the model wants one"},
    {.name = "no-special",
     .kind = OPTION_FLAG,
     .offset = AT(no_special),
     .help = "take control tokens written in the text as plain text"},
};

static const option_spec detokenize_specs[] = {
    {.name = "file",
     .letter = 'f',
     .kind = OPTION_TEXT,
     .offset = AT(file),
     .argument = "FILE",
     .help = "read the ids from FILE (default, and -: standard input)"},
    {.name = "no-special", .kind = OPTION_FLAG, .offset = AT(no_special), .help = "leave control tokens out"},
};

static const tokenize_options defaults;

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .arguments = "MODEL [options]",
    .summary = "text to token ids",
    .details = "Prints the tokens of a text, one in a line: its id and its bytes, escaped.",
    .example = "tokenize model.gguf -p 'Hello, world' --ids",
    .options = tokenize_specs,
    .n_options = CLI_COUNT(tokenize_specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = tokenize,
};

const cli_command cmd_detokenize = {
    .name = "detokenize",
    .arguments = "MODEL [options]",
    .summary = "token ids to text",
    .details = "Reads token ids, decimal numbers with white space between, and writes the bytes they stand for.",
    .example = "detokenize model.gguf -f ids.txt",
    .options = detokenize_specs,
    .n_options = CLI_COUNT(detokenize_specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = detokenize,
};
