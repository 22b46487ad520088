/* The embedded page: every part is there, is what the tree has, and asks nobody else for anything. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/page.h"
#include "testing.h"

static const char *text_of(const char *path)
{
    const page_file *file = page_find(path);
    assert_non_null(file);
    assert_int_equal(strlen((const char *)file->data), file->len); /* text, ended by a 0 */
    return (const char *)file->data;
}

static void paths_are_found(void **state)
{
    (void)state;
    assert_ptr_equal(page_find("/"), page_at(0));
    assert_string_equal(page_find("/")->type, "text/html; charset=utf-8");
    assert_string_equal(page_find("/page.css")->type, "text/css; charset=utf-8");
    assert_string_equal(page_find("/chart.js")->type, "text/javascript; charset=utf-8");
    assert_string_equal(page_find("/icon.svg")->type, "image/svg+xml");
    static const char *const none[] = {"", "/index.html", "/page.css/", "/../page.css", "page.css", "/PAGE.CSS"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_null(page_find(none[i]));
}

static void files_are_whole(void **state)
{
    (void)state;
    size_t n = 0;
    for (const page_file *file; (file = page_at(n)); n++) {
        assert_true(file->len > 100);
        assert_ptr_equal(page_find(file->path), file);
        assert_memory_equal(file->data + file->len, "", 1);
    }
    assert_true(n >= 10);
    assert_non_null(strstr(text_of("/"), "</html>"));
    assert_non_null(strstr(text_of("/chart.js"), "Chart.js v"));
}

/* Whatever `text` names after `before`, up to the quote, as a path: it must be embedded. Returns how many. */
static size_t named_are_there(const char *text, const char *before, const char *prefix)
{
    size_t n = 0;
    while ((text = strstr(text, before))) {
        text += strlen(before);
        const size_t len = strcspn(text, "\"'");
        char path[64];
        assert_true(snprintf(path, sizeof path, "%s%.*s", prefix, (int)len, text) < (int)sizeof path);
        if (path[0] == '/' && !page_find(path)) fail_msg("%s is named but not embedded", path);
        n++;
    }
    return n;
}

static void names_lead_somewhere(void **state)
{
    (void)state;
    assert_true(named_are_there(text_of("/"), "src=\"", "") >= 3);
    assert_true(named_are_there(text_of("/"), "href=\"", "") >= 3);
    size_t imports = 0;
    for (size_t i = 0; page_at(i); i++)
        if (strstr(page_at(i)->type, "javascript") && strcmp(page_at(i)->path, "/chart.js") != 0)
            imports += named_are_there(text_of(page_at(i)->path), "from './", "/");
    assert_true(imports >= 6);
}

/* A strict content policy forbids scripts and styles inside the page, and markup made from strings is how a model's
 * words would become part of it. */
static void page_is_strict(void **state)
{
    (void)state;
    static const char *const never[] = {
        "http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
        "eval(",   "<style",   " style=",   " onclick=", "localhost"};
    for (size_t i = 0; page_at(i); i++) {
        if (strcmp(page_at(i)->path, "/chart.js") == 0) continue;
        const char *text = text_of(page_at(i)->path);
        for (size_t k = 0; k < sizeof never / sizeof *never; k++) {
            const char *found = strstr(text, never[k]);
            /* The name space of SVG is a name, nobody asks for it. */
            if (found && strncmp(found, "http://www.w3.org/2000/svg", 26) != 0)
                fail_msg("%s has %s", page_at(i)->path, never[k]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_found),
        cmocka_unit_test(files_are_whole),
        cmocka_unit_test(names_lead_somewhere),
        cmocka_unit_test(page_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
