/* The files of the page as bytes of the program, and their table as page.h declares it: a length is a difference of
 * addresses, which is a constant to the assembler but not to C. .incbin takes no time, where C arrays of the same
 * bytes take seconds to compile. */
#include "page_files.h"

    .macro embed name, path, file, type
    .section .rodata
path_\name:
    .asciz "\path"
type_\name:
    .asciz "\type"
    .balign 16
data_\name:
    .incbin "\file"
end_\name:
    .byte 0
    .section .data.rel.ro, "aw"
    .quad path_\name, type_\name, data_\name, end_\name - data_\name
    .endm

    .section .data.rel.ro, "aw"
    .global page_table
    .global page_table_end
    .type page_table, @object
    .type page_table_end, @object
    .balign 16
page_table:

#define EMBED(name, path, file, type) embed name, path, file, type;
PAGE_FILES(EMBED)

page_table_end:
    .quad 0
    .size page_table, page_table_end - page_table
    .size page_table_end, 8

    .section .note.GNU-stack, "", @progbits
