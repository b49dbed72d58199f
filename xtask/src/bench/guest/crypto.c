/* Fixed numbers of libcrypto's operations: `openssl speed` counts what fits into a time instead.
 *
 *   crypto aes-256-gcm|chacha20-poly1305|sha256 MIB      seals or hashes blocks of 16 KiB
 *   crypto sign KEY.pem COUNT                            signs a digest
 *
 * Prints what came out last, or, where that is random, that it verifies. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16384

static void must(int ok, const char *what)
{
    if (ok <= 0) {
        fprintf(stderr, "crypto: %s failed\n", what);
        exit(1);
    }
}

static void print(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        printf("%02x", bytes[i]);
    printf("\n");
}

static void seal(const EVP_CIPHER *cipher, long blocks)
{
    static unsigned char key[32], nonce[12], text[BLOCK], sealed[BLOCK], tag[16];
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int length;

    must(EVP_EncryptInit_ex(context, cipher, NULL, key, nonce), "init");
    for (long i = 0; i < blocks; i++) {
        memcpy(nonce, &i, sizeof i);
        must(EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce), "nonce");
        must(EVP_EncryptUpdate(context, sealed, &length, text, BLOCK), "update");
        must(EVP_EncryptFinal_ex(context, sealed + length, &length), "final");
        must(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag), "tag");
        memcpy(text, tag, sizeof tag);
    }
    print(tag, sizeof tag);
}

static void hash(const EVP_MD *kind, long blocks)
{
    static unsigned char text[BLOCK], digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned length = 0;

    for (long i = 0; i < blocks; i++) {
        must(EVP_DigestInit_ex(context, kind, NULL), "init");
        must(EVP_DigestUpdate(context, text, BLOCK), "update");
        must(EVP_DigestFinal_ex(context, digest, &length), "final");
        memcpy(text, digest, length);
    }
    print(digest, length);
}

static void sign(const char *path, long count)
{
    unsigned char digest[32] = { 0 }, signature[512];
    size_t length = 0;
    FILE *file = fopen(path, "r");

    must(file != NULL, "opening the key");
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    must(key != NULL, "reading the key");
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
    must(EVP_PKEY_sign_init(context), "init");
    must(EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()), "digest");
    for (long i = 0; i < count; i++) {
        length = sizeof signature;
        memcpy(digest, &i, sizeof i);
        must(EVP_PKEY_sign(context, signature, &length, digest, sizeof digest), "sign");
    }
    if (EVP_PKEY_base_id(key) == EVP_PKEY_RSA)
        print(signature, length);
    must(EVP_PKEY_verify_init(context), "verify init");
    must(EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()), "digest");
    must(EVP_PKEY_verify(context, signature, length, digest, sizeof digest), "verification");
    printf("verified\n");
}

int main(int argc, char **argv)
{
    long blocks = argc == 3 ? atol(argv[2]) * (1048576 / BLOCK) : 0;

    if (argc == 4 && !strcmp(argv[1], "sign"))
        sign(argv[2], atol(argv[3]));
    else if (argc == 3 && !strcmp(argv[1], "aes-256-gcm"))
        seal(EVP_aes_256_gcm(), blocks);
    else if (argc == 3 && !strcmp(argv[1], "chacha20-poly1305"))
        seal(EVP_chacha20_poly1305(), blocks);
    else if (argc == 3 && !strcmp(argv[1], "sha256"))
        hash(EVP_sha256(), blocks);
    else
        must(0, "the command line");
    return 0;
}
