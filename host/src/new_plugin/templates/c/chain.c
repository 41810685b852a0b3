
/* Puts the result of an op in the place of its first input, which is released; `other` is 0 where there is no second. After a failure
   nothing is there to release. */
static FtStatus replace(int op, uint64_t *value, uint64_t other, FtSliceI64 ints, FtSliceF64 floats) {
    uint64_t inputs[] = {*value, other}, result = 0;
    FtStatus status = run(op, (FtSliceU64){inputs, other ? 2 : 1}, ints, floats, (FtSliceMutU64){&result, 1});
    host->tensor_release(*value);
    *value = status == FT_OK ? result : 0;
    return status;
}
