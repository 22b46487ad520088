/* dot_avx2.c: rows_dot and the quantizer of its activations for AVX2.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, with saturation. Five bits and Q6_K's 0..63
 * cannot reach it (2 * 63 * 127 < 2^15); Q8_0 moves its sign to the activation (2 * 128 * 127 < 2^15 too). vpmaddwd
 * then gives eight sums of four. */
#if defined(__x86_64__)

#include "tensor/simd_avx2.h"

enum { STEPS = 8, TILE_TOKENS = 2 };
typedef __m256i vi;
typedef struct scales { /* of the runs of a chunk: 8, or 16 (Q6_K), or 8 and their minima */
    __m256 v[2];
} scales;

INLINE vi load_bytes(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE vi nibbles(vi bytes, size_t high)
{
    return _mm256_and_si256(high ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
}

/* The 32 nibbles of a block, in order. */
INLINE vi block_nibbles(const uint8_t *quants)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)quants);
    const vi both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* 16 where a bit of the 32 is set. */
INLINE vi fifth_bits(const uint8_t *high)
{
    const vi words = _mm256_set1_epi32((int)load_u32(high));
    const vi which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const vi bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    const vi bits = _mm256_and_si256(_mm256_shuffle_epi8(words, which), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(bits, bit), _mm256_set1_epi8(16));
}

INLINE vi weights_q5_k(const uint8_t *w, size_t k)
{
    const vi bit = _mm256_set1_epi8((char)(1 << k)), high = _mm256_and_si256(load_bytes(w + Q5_K_HIGH), bit);
    const vi fifth = _mm256_and_si256(_mm256_cmpeq_epi8(high, bit), _mm256_set1_epi8(16));
    return _mm256_or_si256(nibbles(load_bytes(w + Q5_K_QUANTS + k / 2 * 32), k % 2), fifth);
}

INLINE vi weights_q6_k(const uint8_t *w, size_t k)
{
    const vi bits = load_bytes(w + Q6_K_HIGH + k / 4 * 32);
    const vi low = nibbles(load_bytes(w + k / 4 * 64 + k % 2 * 32), k % 4 / 2);
    vi high; /* bits 2p and 2p + 1 of every byte, moved to 4 and 5 */
    switch (k % 4) {
    case 0:
        high = _mm256_slli_epi16(bits, 4);
        break;
    case 1:
        high = _mm256_slli_epi16(bits, 2);
        break;
    case 2:
        high = bits;
        break;
    default:
        high = _mm256_srli_epi16(bits, 2);
    }
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

INLINE vi weights(dtype type, const uint8_t *w, size_t k)
{
    switch (type) {
    case DTYPE_Q4_0:
        return block_nibbles(w + k * Q4_0_BYTES + 2);
    case DTYPE_Q4_1:
        return block_nibbles(w + k * Q4_1_BYTES + Q4_1_QUANTS);
    case DTYPE_Q5_0:
        w += k * Q5_0_BYTES;
        return _mm256_or_si256(block_nibbles(w + Q5_0_QUANTS), fifth_bits(w + Q5_0_HIGH));
    case DTYPE_Q5_1:
        w += k * Q5_1_BYTES;
        return _mm256_or_si256(block_nibbles(w + Q5_1_QUANTS), fifth_bits(w + Q5_1_HIGH));
    case DTYPE_Q5_K:
        return weights_q5_k(w, k);
    case DTYPE_Q4_K:
        return nibbles(load_bytes(w + Q4_K_QUANTS + k / 2 * 32), k % 2);
    case DTYPE_Q6_K:
        return weights_q6_k(w, k);
    default:
        return load_bytes(w + k * Q8_0_BYTES + 2);
    }
}

INLINE vi activation(dtype type, const int8_t *x, size_t k)
{
    (void)type;
    return load_bytes(x + k * ACT_BLOCK);
}

INLINE vi sums_of_four(vi unsigned_bytes, vi signed_bytes)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes), _mm256_set1_epi16(1));
}

/* What Q6_K's 32 adds to every sum. */
INLINE vi base(dtype type, vi x)
{
    return type == DTYPE_Q6_K ? sums_of_four(_mm256_set1_epi8(32), x) : _mm256_setzero_si256();
}

INLINE vf int_dot(dtype type, vi b, vi w, vi x)
{
    vi sums;
    if (type == DTYPE_Q8_0) {
        sums = sums_of_four(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    } else {
        sums = sums_of_four(w, x);
    }
    return _mm256_cvtepi32_ps(type == DTYPE_Q6_K ? _mm256_sub_epi32(sums, b) : sums);
}

INLINE short half_at(const uint8_t *p)
{
    return (short)load_u16(p);
}

/* The F16 factors of the 8 blocks of a chunk, `bytes` apart. */
INLINE __m256 block_factors(const uint8_t *w, size_t bytes)
{
    return _mm256_cvtph_ps(_mm_setr_epi16(half_at(w), half_at(w + bytes), half_at(w + 2 * bytes),
                                          half_at(w + 3 * bytes), half_at(w + 4 * bytes), half_at(w + 5 * bytes),
                                          half_at(w + 6 * bytes), half_at(w + 7 * bytes)));
}

INLINE scales weight_scales(dtype type, const uint8_t *w)
{
    scales s = {{_mm256_setzero_ps(), _mm256_setzero_ps()}};
    switch (type) {
    case DTYPE_Q4_0:
        s.v[0] = block_factors(w, Q4_0_BYTES);
        break;
    case DTYPE_Q8_0:
        s.v[0] = block_factors(w, Q8_0_BYTES);
        break;
    case DTYPE_Q5_0:
        s.v[0] = block_factors(w, Q5_0_BYTES);
        break;
    case DTYPE_Q4_1: /* the minima second: see weight_min */
        s.v[0] = block_factors(w, Q4_1_BYTES);
        s.v[1] = block_factors(w + 2, Q4_1_BYTES);
        break;
    case DTYPE_Q5_1:
        s.v[0] = block_factors(w, Q5_1_BYTES);
        s.v[1] = block_factors(w + 2, Q5_1_BYTES);
        break;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        q4_k_factors(w, &s.v[0], &s.v[1]);
        break;
    default:
        s.v[0] = v_mul(v_load_i8(w + Q6_K_SCALES), broadcast_f16(w + Q6_K_D));
        s.v[1] = v_mul(v_load_i8(w + Q6_K_SCALES + VL), broadcast_f16(w + Q6_K_D));
    }
    return s;
}

INLINE bool has_min(dtype type)
{
    return type != DTYPE_Q8_0 && type != DTYPE_Q6_K;
}

/* What scale_sum is multiplied with. */
INLINE vf weight_min(dtype type, scales ws)
{
    if (type == DTYPE_Q4_0) return v_mul(ws.v[0], v_set1(-8));
    return type == DTYPE_Q5_0 ? v_mul(ws.v[0], v_set1(-16)) : ws.v[1];
}

INLINE vf load_sums(const uint8_t *p)
{
    return v_load(p);
}

INLINE scales activation_scales(dtype type, const uint8_t *p)
{
    const vf s = v_load(p);
    if (type != DTYPE_Q6_K) return (scales){{s, s}};
    return (scales){{_mm256_permutevar8x32_ps(s, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                     _mm256_permutevar8x32_ps(s, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7))}};
}

INLINE scales scales_mul(scales a, scales b)
{
    return (scales){{v_mul(a.v[0], b.v[0]), v_mul(a.v[1], b.v[1])}};
}

/* The scale of each of the 8 sums of step k. */
INLINE vf expand(dtype type, scales s, size_t k)
{
    const int q = 2 * ((int)k % 4), lo = type == DTYPE_Q6_K ? q : (int)k, hi = type == DTYPE_Q6_K ? q + 1 : (int)k;
    const vf source = type == DTYPE_Q6_K ? s.v[k / 4] : s.v[0];
    return _mm256_permutevar8x32_ps(source, _mm256_setr_epi32(lo, lo, lo, lo, hi, hi, hi, hi));
}

#include "tensor/simd_dot.h"

void rows_dot_avx2(dtype type, size_t n, const void *w, size_t w_stride, size_t rows, const void *const *x,
                   float *const *out, size_t tokens, const void *next)
{
    const dot_args a = {n, w, w_stride, rows, x, out, next ? next : w};
    run_type(type, &a, tokens);
}

/* Largest of eight, smallest first thing to add: horizontal helpers of the quantizer. */
INLINE int largest_of_eight(vi v)
{
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

INLINE int sum_of_eight(vi v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Four vectors of 32-bit integers that fit 8 bits, in order. */
INLINE vi pack_bytes(const vi *q)
{
    const vi words0 = _mm256_packs_epi32(q[0], q[1]), words1 = _mm256_packs_epi32(q[2], q[3]);
    const vi order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* the packs work within halves */
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words0, words1), order);
}

void quantize_act_avx2(const float *x, size_t n, void *out)
{
    uint8_t *quants = out, *scales_out = quants + n, *sums = scales_out + n / 8, *half_sums = sums + n / 8;
    const vi magnitude = _mm256_set1_epi32(0x7fffffff);
    for (size_t i = 0; i < n; i += ACT_BLOCK, scales_out += 4, sums += 4, half_sums += 8) {
        vi top = _mm256_setzero_si256(), q[4];
        for (size_t k = 0; k < 4; k++) {
            const vi bits = _mm256_and_si256(_mm256_castps_si256(v_load(x + i + k * VL)), magnitude);
            top = _mm256_max_epi32(top, bits); /* as integers NaN is largest of all */
        }
        const int largest_bits = largest_of_eight(top);
        float largest;
        memcpy(&largest, &largest_bits, sizeof largest);
        const float scale = largest <= ACT_TINY ? 0.0f : largest / 127.0f;
        const vf inverse = v_set1(largest > ACT_TINY ? 127.0f / largest : 0.0f);
        for (size_t k = 0; k < 4; k++) q[k] = _mm256_cvtps_epi32(v_mul(v_load(x + i + k * VL), inverse));
        const int sum0 = sum_of_eight(_mm256_add_epi32(q[0], q[1])), sum1 = sum_of_eight(_mm256_add_epi32(q[2], q[3]));
        const float sum = scale * (float)(sum0 + sum1);
        const int32_t halves[2] = {sum0, sum1};
        _mm256_storeu_si256((__m256i *)(quants + i), pack_bytes(q));
        memcpy(scales_out, &scale, sizeof scale);
        memcpy(sums, &sum, sizeof sum);
        memcpy(half_sums, halves, sizeof halves);
    }
}

#endif
